//! Sans-IO core of the coordinator
