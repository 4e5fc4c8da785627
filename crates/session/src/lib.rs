//! A client as a value: who leads, retry, fail-over, exactly-once numbering.
