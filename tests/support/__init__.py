"""What several tests share: small configurations, several processes,
stand-ins, programs with a planted fault.
"""

from pathlib import Path

#: Where the programs lie that tests start as processes of their own.
PROGRAMS = Path(__file__).parent
