"""`python -m jaxneuron`."""

import sys

from jaxneuron.cli import main

sys.exit(main())
