//! Sans-IO core of the client
