//! A model of the proxy between its clients and a cluster, searched exhaustively: every order of events, none cut by depth or time.
//!
//! Clocks, notes, fences, marks, flights, the cluster's board and the stream's state are the crate's own; the model adds the world, and
//! the order in which sessions call them. Two things keep it small, and neither leaves a lie out. Decisions never look at an answer,
//! and the contract only asks that it holds enough: of two worlds the one with less is searched, in which a replica has replayed what a
//! reader's fence demands and no more, and a read sees its snapshot when it begins. And two states are one when they decide the same
//! from there on: epochs count by which note is current or covers which, positions by what lies behind them. Sessions read without end.
//! Three searches share the events: writes with new starts and lost connections; writes with a failover; writes through and past the
//! proxy with a stream. A stream with a failover is not searched: it ends with the era. Nor are time, levels but fresh, catalog, pools.
//! How many states there are differs between runs by a few in a million, so somewhere two that count as one are not quite the same.

mod cluster;
mod observed;
mod proxy;
mod runs;
mod streamed;
