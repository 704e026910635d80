"""The article, reproduced: its numbers, its listings trained, its claims measured."""
