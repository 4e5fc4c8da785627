//! One server as a value: its lanes and the messages between them.
