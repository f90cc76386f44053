"""What PyInstaller does not see of the runtime: modules that are imported by name, C sources, metadata."""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata

hiddenimports = collect_submodules("steprnn.runtime")  # commands, engines and kinds of package
datas = [
    *collect_data_files("steprnn.runtime"),
    *copy_metadata("steprnn"),  # the version, the commands, and where a missing extra comes from
]
