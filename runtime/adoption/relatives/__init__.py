"""Cheaper relatives of a foreign model, made from it by distillation on footage: exit heads, bottlenecks, a student."""
