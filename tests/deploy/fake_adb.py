"""Stands for adb and a phone with a runner: answers the commands that `Android` gives."""

from __future__ import annotations

import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["-s"]:
        arguments = arguments[2:]
    mode = (Path(sys.argv[0]).parent / "mode").read_text().strip()
    if arguments == ["devices"]:
        state = {"none": "", "unauthorized": "PHONE1\tunauthorized\n"}.get(mode, "PHONE1\tdevice\n")
        print("List of devices attached\n" + state)
        return 0
    if mode == "gone":
        print("error: device 'PHONE1' not found", file=sys.stderr)
        return 1
    if arguments[0] == "push":
        return 0
    command = arguments[1]
    if command.startswith("test -x"):
        print("no" if mode == "no runner" else "yes")
    elif command.startswith("getprop"):
        print("Phone")
    elif "--num_executions=" in command:
        count = int(command.split("--num_executions=")[1].split()[0])
        if mode == "crash":
            print("F 00:00:00.1 executorch:executor_runner.cpp:99] Loading of method forward failed with status 0x14")
        else:
            print(
                "I 00:00:00.5 executorch:executor_runner.cpp:300] "
                f"Model executed successfully {count} time(s) in {2.5 * count:f} ms."
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
