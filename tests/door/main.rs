//! The door with real sockets: greeting, limits, timeouts and logins, in front of sessions that only say they are ready.
//!
//! What is proved: nobody gets in without the login, nobody is told more than PostgreSQL tells, and nobody at the door can harm
//! those who are in. No PostgreSQL is needed, except where verifiers are asked of one.

mod auth_query;
mod greeting;
mod limits;
mod listening;
mod login;
mod tls;
