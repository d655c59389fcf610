from data_tools.build.options import BuildOptions, BuildStats
from data_tools.build.shards import build_shards
__all__ = ["BuildOptions", "BuildStats", "build_shards"]
