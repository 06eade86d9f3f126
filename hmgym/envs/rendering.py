"""One frame that tells the story of an episode: prices against fundamentals, the learner's wealth, all leverage.

Drawn with pygame, of the `render` extra, imported at the first frame.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hmgym.envs.history import EpisodeSeries, FloatArray

FRAME_SIZE = (960, 640)
"""Width and height of a frame in pixels."""

Colour = tuple[int, int, int]
_INK: Colour = (38, 42, 51)
_MUTED: Colour = (120, 127, 140)
_GRID: Colour = (226, 229, 235)
_PAPER: Colour = (255, 255, 255)
_LEARNER: Colour = (200, 62, 50)
_LEARNERS: Colour = (240, 170, 60)  # the last of several learners; those between are mixed
_CROWD: Colour = (96, 104, 120)
_ASSETS: tuple[Colour, ...] = (
    (31, 99, 176),
    (222, 132, 32),
    (34, 139, 94),
    (137, 87, 168),
    (120, 86, 60),
    (0, 150, 170),
)


def _import_pygame() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
    except ImportError as error:
        raise ImportError('rendering needs pygame: pip install "hmgym[render]"') from error
    return pygame


class Viewer:
    """Draws frames, into an array or into a window.

    Args:
        render_mode: "rgb_array" or "human".
        fps: frames a second at which a window is refreshed.
    """

    def __init__(self, render_mode: str, fps: int) -> None:
        self.render_mode = render_mode
        self._fps = fps
        self._window: Any = None
        self._clock: Any = None
        self._fonts: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_window": None, "_clock": None, "_fonts": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> Viewer:
        return Viewer(self.render_mode, self._fps)  # a copy opens its own window

    def draw(self, series: EpisodeSeries, title: str) -> npt.NDArray[np.uint8] | None:
        """Draw the episode so far; an array (height, width, 3) for "rgb_array", None for "human"."""
        pygame = _import_pygame()
        if not pygame.font.get_init():
            pygame.font.init()
            self._fonts.clear()
        surface = pygame.Surface(FRAME_SIZE)
        self._compose(pygame, surface, series, title)
        if self.render_mode == "human":
            self._show(pygame, surface)
            return None
        return np.transpose(pygame.surfarray.array3d(surface), (1, 0, 2)).astype(np.uint8, order="C")

    def close(self) -> None:
        """Close the window, if one is open."""
        if self._window is not None:
            pygame = _import_pygame()
            pygame.display.quit()
            self._window = self._clock = None

    def _show(self, pygame: Any, surface: Any) -> None:
        if self._window is None:
            try:
                pygame.display.init()
                self._window = pygame.display.set_mode(FRAME_SIZE)
            except pygame.error:  # no screen: the loop still runs, drawn to nowhere
                os.environ["SDL_VIDEODRIVER"] = "dummy"
                pygame.display.quit()
                pygame.display.init()
                self._window = pygame.display.set_mode(FRAME_SIZE)
            pygame.display.set_caption("hmgym")
            self._clock = pygame.time.Clock()
        self._window.blit(surface, (0, 0))
        pygame.event.pump()
        pygame.display.flip()
        self._clock.tick(self._fps)

    def _text(
        self, pygame: Any, surface: Any, text: str, at: tuple[int, int], size: int, colour: Colour, right: bool = False
    ) -> int:
        if size not in self._fonts:
            self._fonts[size] = pygame.font.Font(None, size)
        image = self._fonts[size].render(text, True, colour)
        x = at[0] - image.get_width() if right else at[0]
        surface.blit(image, (x, at[1]))
        return int(image.get_width())

    def _compose(self, pygame: Any, surface: Any, series: EpisodeSeries, title: str) -> None:
        surface.fill(_PAPER)
        width, height = FRAME_SIZE
        self._text(pygame, surface, title, (24, 14), 26, _INK)
        n = series.prices.shape[1]
        base = series.prices[0]
        lines: list[tuple[FloatArray, Colour, bool]] = []
        for i in range(n):
            lines.append((np.log(series.fundamentals[:, i] / base[i]), _tint(_ASSETS[i % len(_ASSETS)]), True))
        for i in range(n):
            lines.append((np.log(series.prices[:, i] / base[i]), _ASSETS[i % len(_ASSETS)], False))
        self._panel(
            pygame,
            surface,
            (24, 48, width - 48, 318),
            "Price (solid) and fundamental value (dashed), log change",
            lines,
        )
        half = (width - 72) // 2
        top = 48 + 318 + 24
        value, leverage = series.unit_value, series.learner_leverage
        one = value.ndim == 1
        colours = (
            (_LEARNER,)
            if one
            else tuple(_mix(_LEARNER, _LEARNERS, i / (value.shape[1] - 1)) for i in range(value.shape[1]))
        )
        self._panel(
            pygame, surface, (24, top, half, height - top - 24),
            ("Learner's unit value" if one else "Learners' unit values") + f" {_span(value[-1])}, log",
            [(np.log(line), colour, False) for line, colour in zip(np.atleast_2d(value.T), colours, strict=True)],
        )  # fmt: skip
        self._panel(
            pygame, surface, (48 + half, top, half, height - top - 24),
            f"Gross leverage: {'learner' if one else 'learners'} {_span(leverage[-1])} (red), "
            f"crowd {series.crowd_leverage[-1]:.2f}",
            [(series.crowd_leverage, _CROWD, False)]
            + [(line, colour, False) for line, colour in zip(np.atleast_2d(leverage.T), colours, strict=True)],
            floor=0.0,
        )  # fmt: skip

    def _panel(
        self,
        pygame: Any,
        surface: Any,
        box: tuple[int, int, int, int],
        title: str,
        lines: Sequence[tuple[FloatArray, Colour, bool]],
        floor: float | None = None,
    ) -> None:
        x, y, width, height = box
        self._text(pygame, surface, title, (x, y), 20, _INK)
        left, right, top, bottom = x + 46, x + width - 6, y + 24, y + height - 4
        values = np.concatenate([line for line, _, _ in lines])
        low, high = float(values.min()), float(values.max())
        low, high = (low if floor is None else min(floor, low)), max(high, low + 0.05)
        pad = 0.06 * (high - low)
        low, high = low - pad, high + pad
        for tick in _ticks(low, high):
            row = round(bottom - (tick - low) / (high - low) * (bottom - top))
            pygame.draw.line(surface, _GRID, (left, row), (right, row))
            self._text(pygame, surface, f"{tick:g}", (left - 6, row - 6), 18, _MUTED, right=True)
        span = max(len(lines[0][0]) - 1, 12)
        for line, colour, dashed in lines:
            columns = left + np.arange(len(line)) / span * (right - left)
            points = np.stack([columns, bottom - (line - low) / (high - low) * (bottom - top)], axis=1)
            if len(points) == 1:
                pygame.draw.circle(surface, colour, points[0], 3)
            elif dashed:
                for begin, end in _dashes(points):
                    pygame.draw.line(surface, colour, begin, end, 2)
            else:
                pygame.draw.lines(surface, colour, False, points, 2)


def _mix(first: Colour, last: Colour, share: float) -> Colour:
    """A colour on the way from the first to the last."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(first, last, strict=True))
    return red, green, blue


def _span(values: FloatArray) -> str:
    """One number as it is, several by their smallest and largest."""
    return f"{values:.2f}" if values.ndim == 0 else f"{values.min():.2f} to {values.max():.2f}"


def _tint(colour: Colour) -> Colour:
    red, green, blue = ((channel + 255) // 2 for channel in colour)
    return red, green, blue


def _ticks(low: float, high: float, count: int = 4) -> FloatArray:
    raw = (high - low) / count
    scale = 10.0 ** np.floor(np.log10(raw))
    step = scale * min((1.0, 2.0, 2.5, 5.0, 10.0), key=lambda multiple: abs(multiple * scale - raw))
    first = np.ceil(low / step)
    ticks: FloatArray = np.round(step * np.arange(first, np.floor(high / step) + 1.0), 10) + 0.0
    return ticks


def _dashes(points: FloatArray, dash: float = 6.0) -> list[tuple[FloatArray, FloatArray]]:
    """Cut a line through `points` into dashes of equal length with gaps as long."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    cuts = np.arange(0.0, length[-1], dash)
    ends = np.stack([np.interp(cuts, length, points[:, 0]), np.interp(cuts, length, points[:, 1])], axis=1)
    return [(ends[i], ends[i + 1]) for i in range(0, len(ends) - 1, 2)]
