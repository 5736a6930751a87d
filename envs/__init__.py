"""One Gymnasium environment over two backends: the twin (batched emulation) or live (real processes).

``import envs`` registers ``mecpilot/Inference-v0``.
"""

from gymnasium.envs.registration import register

register(id="mecpilot/Inference-v0", entry_point="envs.env:make_env")
