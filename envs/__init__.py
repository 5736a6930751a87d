"""One Gymnasium environment over two backends: the twin (batched emulation) and real processes.

``import envs`` registers three ids. ``mecpilot/Campus-v0`` and ``mecpilot/Garments-v0`` play the shipped bundles;
``mecpilot/Inference-v0`` plays the bundle of its ``bundle`` argument, a name or a directory. ``envs.env.make_env``
describes the other arguments.
"""

from gymnasium.envs.registration import register

register(id="mecpilot/Campus-v0", entry_point="envs.env:make_env", kwargs={"bundle": "campus"})
register(id="mecpilot/Garments-v0", entry_point="envs.env:make_env", kwargs={"bundle": "garments"})
register(id="mecpilot/Inference-v0", entry_point="envs.env:make_env")
