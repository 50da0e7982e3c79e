//! The contract between the operator and the mover: Request, Report, exit codes.
