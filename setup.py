"""Install mammogan from settings.ini, the one place where its name, version and requirements stand."""
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="], inline_comment_prefixes=("#",))
parser.read(here / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    license="Apache-2.0",
    keywords=cfg["keywords"],
    classifiers=["Intended Audience :: Science/Research", "Topic :: Scientific/Engineering :: Medical Science Apps.", "Typing :: Typed",
                 *[f"Programming Language :: Python :: 3.{n}" for n in range(int(cfg["min_python"].split(".")[1]), 14)]],
    packages=[cfg["lib_path"]],
    package_data={cfg["lib_path"]: ["py.typed", "reader_page.html", "templates/*", "generators/*/*"]},
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require={name.removesuffix("_requirements"): wanted.split() for name, wanted in cfg.items() if name.endswith("_requirements")},
    entry_points={"console_scripts": cfg.get("console_scripts", "").split(),
                  "nbdev": [f"{cfg['lib_path']}=mammogan._modidx:d"]},
    zip_safe=False,
)
