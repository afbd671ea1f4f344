//! One client: its login, its statements, and the server connections that it borrows.
//!
//! Called by the listener with a socket. Parts that decide without a socket, such as which answer of a server belongs to
//! which message of the client, are pure and stand in files of their own.

pub mod answers;
pub mod client;
pub mod settings;
pub mod stream;
pub mod unit;
