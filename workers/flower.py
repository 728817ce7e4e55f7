"""The monitor: `python -m workers.flower`, or `techdeck worker flower` with options."""

from techdeck_tasks.settings import load_settings
from techdeck_tasks.web.flower import serve

if __name__ == "__main__":
    serve(load_settings(), address="127.0.0.1", port=5555)
