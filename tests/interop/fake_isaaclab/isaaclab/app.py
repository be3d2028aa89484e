"""Starts the simulator, of which nothing can be imported before."""

from __future__ import annotations

import argparse

events: list[str] = []
"""What happened, in order."""


class AppLauncher:
    def __init__(self, launcher_args: argparse.Namespace) -> None:
        self.arguments = launcher_args
        events.append(f"launched on {launcher_args.device}, headless {launcher_args.headless}")
        if launcher_args.enable_cameras:
            events.append("cameras")
        if launcher_args.livestream != -1:
            events.append(f"livestream {launcher_args.livestream}")
        self.app = SimulationApp()

    @staticmethod
    def add_app_launcher_args(parser: argparse.ArgumentParser) -> None:
        group = parser.add_argument_group("app_launcher arguments")
        group.add_argument("--headless", action="store_true", default=False)
        group.add_argument("--livestream", type=int, default=-1, choices={0, 1, 2})
        group.add_argument("--enable_cameras", action="store_true", default=False)
        group.add_argument("--device", type=str, default="cuda:0")


class SimulationApp:
    running = False

    def __init__(self) -> None:
        type(self).running = True

    def close(self) -> None:
        type(self).running = False
        events.append("app closed")
