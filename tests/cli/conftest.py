from tests.row_files import model, refused

__all__ = ["model", "refused"]
