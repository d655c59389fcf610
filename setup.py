"""What pyproject.toml cannot say:
folders of the repository that a wheel carries as data of the package.
"""

from setuptools import find_namespace_packages, setup

#: Name in the wheel (`electra_dist.files.shipped` looks there) -> folder of the repository.
SHIPPED = {
    "electra_dist.shipped.configs": "configs",
    "electra_dist.shipped.slurm.clusters": "slurm/clusters",
}

setup(
    packages=[
        *find_namespace_packages(include=["electra_dist*", "data_tools*", "launcher*"]),
        *SHIPPED,
    ],
    package_dir=SHIPPED,
    package_data={
        **{name: ["*.yaml"] for name in SHIPPED},
        **{name: ["py.typed"] for name in ("electra_dist", "data_tools", "launcher")},
        "electra_dist.references": ["curves/*.json"],
        "launcher.slurm": ["job.sbatch"],
        "electra_dist.report.page": ["report.html", "report.css", "report.js"],
        "electra_dist.suspects.page": ["suspects.html", "suspects.css"],
        "electra_dist.serve.page": ["form.html", "form.css", "form.js"],
    },
)
