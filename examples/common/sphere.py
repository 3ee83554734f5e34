"""Distances and directions on the Earth, taken as a sphere. Angles are in degrees, distances in kilometres."""

from __future__ import annotations

from typing import Any

import numpy as np

RADIUS = 6371.0088  # mean radius, IUGG


def distance(lat1: Any, lon1: Any, lat2: Any, lon2: Any) -> Any:
    """Great-circle distance by the haversine formula, which is exact for small distances too."""
    lat1, lon1, lat2, lon2 = map(np.radians, (lat1, lon1, lat2, lon2))
    h = np.sin((lat2 - lat1) / 2) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
    return 2 * RADIUS * np.arcsin(np.sqrt(np.clip(h, 0, 1)))


def offset(lat1: Any, lon1: Any, lat2: Any, lon2: Any) -> tuple[Any, Any]:
    """How far east and how far north the second point lies, seen along the great circle that leads to it.

    This is the azimuthal equidistant projection around the first point; `move` is its inverse.
    """
    far = distance(lat1, lon1, lat2, lon2)
    lat1, lon1, lat2, lon2 = map(np.radians, (lat1, lon1, lat2, lon2))
    east = np.cos(lat2) * np.sin(lon2 - lon1)
    north = np.cos(lat1) * np.sin(lat2) - np.sin(lat1) * np.cos(lat2) * np.cos(lon2 - lon1)
    bearing = np.arctan2(east, north)
    return far * np.sin(bearing), far * np.cos(bearing)


def move(lat: Any, lon: Any, east: Any, north: Any) -> tuple[Any, Any]:
    """The point (lat, lon) that lies so far east and north, as `offset` measures it; lon in [-180, 180)."""
    lat, lon = np.radians(lat), np.radians(lon)
    angle, bearing = np.hypot(east, north) / RADIUS, np.arctan2(east, north)
    sine = np.sin(lat) * np.cos(angle) + np.cos(lat) * np.sin(angle) * np.cos(bearing)
    lat2 = np.arcsin(np.clip(sine, -1, 1))
    lon2 = lon + np.arctan2(np.sin(bearing) * np.sin(angle) * np.cos(lat), np.cos(angle) - np.sin(lat) * np.sin(lat2))
    return np.degrees(lat2), (np.degrees(lon2) + 180) % 360 - 180
