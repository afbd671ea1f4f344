//! A model of the proxy between its clients and a cluster, searched exhaustively: every order of events, none left out.
//!
//! The clocks, notes, fences, marks and flights in it are the crate's own values, and change by the crate's own code; what the model
//! adds is the world around them, and the order in which a session calls them. Two things make it finite and small, and neither
//! leaves a lie out. First, decisions never look at an answer, and the contract only asks that an answer holds enough: so of two
//! worlds that differ in what an answer holds, the one where it holds less is searched. A replica has replayed what its reader's
//! fence demands and nothing more, and a read sees its snapshot the moment it begins. Second, two states are one when what they
//! hold decides the same from there on: epochs count only as far as a note is current or covers another, positions only by the
//! commits behind them. Readers read without end. A lie in any of the searched states is a lie to one who is served there.

mod observed;
mod proxy;
mod runs;
