"""How an event gets into the log: publisher, spool, stream, drain, writer."""
