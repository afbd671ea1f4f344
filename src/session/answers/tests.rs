//! Conversations, each with what the server sends and what the client must get.
//!
//! Run by `cargo test`. A server's messages are written as their type bytes; what the proxy says itself appears in the
//! client's transcript as its own bytes.

use super::*;
use Sent::{Bind, CloseStatement, DescribePortal, DescribeStatement, Execute, Parse, Query, Sync};

/// A message of the client, as the proxy treats it.
enum Step {
    Send(Sent),
    Inject(Sent),
    Say(&'static [u8]),
}
use Step::{Inject, Say, Send};

/// What the client gets, as type bytes.
fn talk(steps: &[Step], server: &[u8]) -> Result<Vec<u8>, OutOfStep> {
    let mut answers = Answers::default();
    for step in steps {
        match step {
            Send(message) => answers.sent(*message, For::Client),
            Inject(message) => answers.sent(*message, For::Proxy),
            Say(bytes) => answers.say(Bytes::from_static(bytes)),
        }
    }
    let (mut client, mut out) = (Vec::new(), BytesMut::new());
    for tag in server {
        answers.spoken(&mut out);
        client.extend_from_slice(&out.split());
        if answers.arrived(*tag)? == Verdict::Forward {
            client.push(*tag);
        }
    }
    answers.spoken(&mut out);
    client.extend_from_slice(&out);
    assert!(answers.is_empty(), "all was answered");
    Ok(client)
}

fn check(steps: &[Step], server: &[u8], client: &[u8]) {
    let got = talk(steps, server).expect("in step");
    assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(client));
}

#[test]
fn what_is_only_forwarded_arrives_as_it_was_sent() {
    check(&[Send(Query)], b"TDDCZ", b"TDDCZ");
    check(&[Send(Query)], b"TCEZ", b"TCEZ");
    check(&[Send(Query)], b"GCZ", b"GCZ");
    check(&[Send(Query)], b"VZ", b"VZ");
    check(
        &[
            Send(Parse),
            Send(Bind),
            Send(DescribePortal),
            Send(Execute),
            Send(Sync),
        ],
        b"12TDDCZ",
        b"12TDDCZ",
    );
    check(
        &[Send(Parse), Send(DescribeStatement), Send(Sync)],
        b"1tnZ",
        b"1tnZ",
    );
    check(&[Send(Execute), Send(Execute), Send(Sync)], b"DsDCZ", b"DsDCZ");
}

#[test]
fn an_injected_parse_is_swallowed() {
    check(
        &[Inject(Parse), Send(Bind), Send(Execute), Send(Sync)],
        b"12DCZ",
        b"2DCZ",
    );
}

#[test]
fn the_proxys_own_answers_keep_their_place() {
    check(
        &[Say(b"1"), Send(Bind), Say(b"3"), Send(Execute), Send(Sync)],
        b"2DCZ",
        b"123DCZ",
    );
    check(&[Send(Sync), Say(b"3"), Say(b"Z")], b"Z", b"Z3Z");
}

#[test]
fn settings_sent_ahead_are_not_heard() {
    check(&[Inject(Query), Send(Query)], b"CZTDCZ", b"TDCZ");
    check(&[Inject(Query), Send(Query)], b"CSZTDCZ", b"STDCZ");
}

#[test]
fn an_error_skips_to_the_next_sync_and_no_further() {
    let batch = [
        Send(Parse),
        Send(Bind),
        Say(b"3"),
        Send(Execute),
        Send(Sync),
        Send(Parse),
        Send(Sync),
    ];
    check(&batch, b"EZ1Z", b"EZ1Z");
    check(&batch, b"12EZ1Z", b"123EZ1Z");
    check(
        &[Inject(Parse), Send(Bind), Send(Execute), Send(Sync)],
        b"EZ",
        b"EZ",
    );
    check(&[Send(Sync), Send(CloseStatement), Send(Sync)], b"EZ3Z", b"EZ3Z");
}

#[test]
fn what_comes_at_any_moment_is_passed() {
    check(&[Inject(Parse), Send(Bind), Send(Sync)], b"N1A2SZ", b"NA2SZ");
}

#[test]
fn a_server_out_of_step_is_found_out() {
    assert_eq!(
        talk(&[Send(Bind), Send(Sync)], b"1"),
        Err(OutOfStep { tag: b'1' })
    );
    assert_eq!(talk(&[Send(Query)], b"CZC"), Err(OutOfStep { tag: b'C' }));
    assert_eq!(
        talk(&[Send(Parse), Send(Sync)], b"Z"),
        Err(OutOfStep { tag: b'Z' })
    );
    assert_eq!(talk(&[], b"E"), Err(OutOfStep { tag: b'E' }));
}

#[test]
fn units_are_counted_by_their_ends() {
    let mut answers = Answers::default();
    answers.sent(Parse, For::Client);
    assert_eq!(answers.units(), 0);
    answers.sent(Sync, For::Client);
    answers.sent(Query, For::Client);
    assert_eq!(answers.units(), 2);
}
