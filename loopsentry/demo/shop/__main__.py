"""First the wizard, then the server."""

from .server import serve
from .wizard import run_wizard

if __name__ == "__main__":
    run_wizard()
    serve()
