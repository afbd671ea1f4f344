//! The SQLSTATE codes that the proxy itself reports.
//!
//! Source: PostgreSQL manual, appendix "PostgreSQL Error Codes". Codes that only a server reports are not listed here,
//! except those on which the proxy decides something.

/// `protocol_violation`.
pub const PROTOCOL_VIOLATION: &str = "08P01";
/// `connection_failure`.
pub const CONNECTION_FAILURE: &str = "08006";
/// `sqlclient_unable_to_establish_sqlconnection`.
pub const CANNOT_CONNECT: &str = "08001";
/// `feature_not_supported`.
pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
/// `invalid_parameter_value`.
pub const INVALID_PARAMETER_VALUE: &str = "22023";
/// `active_sql_transaction`.
pub const ACTIVE_TRANSACTION: &str = "25001";
/// `read_only_sql_transaction`: also what a standby answers to a write.
pub const READ_ONLY_TRANSACTION: &str = "25006";
/// `no_active_sql_transaction`.
pub const NO_ACTIVE_TRANSACTION: &str = "25P01";
/// `in_failed_sql_transaction`.
pub const FAILED_TRANSACTION: &str = "25P02";
/// `idle_in_transaction_session_timeout`.
pub const IDLE_IN_TRANSACTION_TIMEOUT: &str = "25P03";
/// `invalid_sql_statement_name`.
pub const INVALID_STATEMENT_NAME: &str = "26000";
/// `invalid_authorization_specification`.
pub const INVALID_AUTHORIZATION: &str = "28000";
/// `invalid_password`.
pub const INVALID_PASSWORD: &str = "28P01";
/// `serialization_failure`: on a standby, a recovery conflict.
pub const SERIALIZATION_FAILURE: &str = "40001";
/// `insufficient_privilege`.
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// `syntax_error`.
pub const SYNTAX_ERROR: &str = "42601";
/// `undefined_object`.
pub const UNDEFINED_OBJECT: &str = "42704";
/// `duplicate_prepared_statement`.
pub const DUPLICATE_PREPARED_STATEMENT: &str = "42P05";
/// `undefined_table`.
pub const UNDEFINED_TABLE: &str = "42P01";
/// `undefined_cursor`.
pub const UNDEFINED_CURSOR: &str = "34000";
/// `too_many_connections`.
pub const TOO_MANY_CONNECTIONS: &str = "53300";
/// `program_limit_exceeded`.
pub const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
/// `object_not_in_prerequisite_state`.
pub const NOT_IN_PREREQUISITE_STATE: &str = "55000";
/// `query_canceled`.
pub const QUERY_CANCELED: &str = "57014";
/// `admin_shutdown`.
pub const ADMIN_SHUTDOWN: &str = "57P01";
/// `crash_shutdown`.
pub const CRASH_SHUTDOWN: &str = "57P02";
/// `cannot_connect_now`.
pub const CANNOT_CONNECT_NOW: &str = "57P03";
/// `idle_session_timeout`.
pub const IDLE_SESSION_TIMEOUT: &str = "57P05";
/// `config_file_error`.
pub const CONFIG_FILE_ERROR: &str = "F0000";
/// `internal_error`.
pub const INTERNAL_ERROR: &str = "XX000";
