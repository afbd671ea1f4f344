//! Half a gigabyte from somebody who has not logged in: the connection is closed long before, and memory stays as it was.
//!
//! Whatever the bytes are: a startup packet without end, lengths that nobody can mean, garbage, passwords. There is no server
//! behind the proxy, because nobody gets that far.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::program::{Program, SSL_REQUEST, in_time, startup};

const ALL_BYTES: usize = 500 << 20;
/// What the kernel takes for a socket whose reader does not read, at most, and some.
const TAKEN_BYTES_MAX: usize = 32 << 20;
/// How much more memory all of it may take.
const GROWTH_BYTES_MAX: usize = 4 << 20;
const MANY: usize = 64;

const USER: &str = "[[auth.user]]\nname = \"ann\"\npassword = \"a secret\"\n";

async fn program(directory: &tempfile::TempDir) -> Program {
    let file = directory.path().join("proxy.toml");
    std::fs::write(&file, USER).expect("written");
    let file = file.to_str().expect("UTF-8");
    Program::serve(&["--config", file, "--node", "127.0.0.1:1"]).await
}

/// Writes the chunk again and again until the other side has closed; how many bytes were taken.
async fn flood(stream: &mut TcpStream, chunk: &[u8], most: usize) -> usize {
    let mut sent = 0;
    while sent < most {
        match in_time("the proxy neither reads nor closes", stream.write(chunk)).await {
            Ok(taken) => sent += taken,
            Err(_) => break,
        }
    }
    sent
}

/// A message of a login in progress: one of this length as it says, with as many bytes as there are.
fn password(length: u32, bytes: usize) -> Vec<u8> {
    let mut message = [b"p", &length.to_be_bytes()[..]].concat();
    message.resize(5 + bytes, b'x');
    message
}

/// Bytes that follow no pattern, and the same ones each time.
fn garbage(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(&mut next).take(bytes).collect()
}

#[tokio::test]
async fn half_a_gigabyte_of_anything_leaves_memory_flat() {
    let directory = tempfile::tempdir().expect("a directory");
    let program = program(&directory).await;
    let zeros = vec![0; 1 << 20];
    let letters = vec![b'x'; 1 << 20];
    let starts = |length: u32, chunk: &[u8]| {
        let head = [length.to_be_bytes(), (3_u32 << 16).to_be_bytes()].concat();
        (head, chunk.to_vec())
    };
    let shapes = [
        ("a startup packet without end", starts(10_000, &letters)),
        ("one that is too long", starts(10_001, &letters)),
        ("one of two gigabytes", starts(0x7fff_ffff, &letters)),
        ("one of a negative length", starts(0xffff_ffff, &letters)),
        ("one shorter than its length", starts(3, &letters)),
        ("zeros", (Vec::new(), zeros.clone())),
        ("requests for TLS", (Vec::new(), SSL_REQUEST.repeat(1 << 17))),
        ("garbage", (Vec::new(), garbage(1 << 20))),
        (
            "HTTP",
            (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), letters.clone()),
        ),
        (
            "statements before the password",
            (
                startup("ann", "postgres"),
                crate::program::query("SELECT 1").repeat(1 << 16),
            ),
        ),
    ];
    let before = program.peak_memory();
    for (name, (opening, chunk)) in shapes {
        let mut stream = program.connect().await;
        stream.write_all(&opening).await.expect("the opening is taken");
        let taken = flood(&mut stream, &chunk, ALL_BYTES).await;
        assert!(taken < TAKEN_BYTES_MAX, "{name}: {taken} bytes were taken");
        let grown = program.growth_since(before);
        assert!(grown < GROWTH_BYTES_MAX, "{name}: memory grew by {grown} bytes");
        assert!(program.answers_newcomers().await, "{name}");
    }
}

/// A connection that was asked for its password.
async fn asked(program: &Program) -> TcpStream {
    let mut stream = program.connect().await;
    stream.write_all(&startup("ann", "postgres")).await.expect("sent");
    let mut asked = [0; 9];
    in_time("the question", stream.read_exact(&mut asked))
        .await
        .expect("a question");
    assert_eq!(asked[0], b'R', "it asks for a password");
    assert_eq!(asked[5..], 10_u32.to_be_bytes(), "by SASL");
    stream
}

#[tokio::test]
async fn passwords_without_end_leave_memory_flat() {
    let directory = tempfile::tempdir().expect("a directory");
    let program = program(&directory).await;
    let shapes = [
        ("one of two gigabytes", password(0x7fff_ffff, 1 << 20)),
        ("a long one", password(1 << 20, 1 << 20)),
        ("many short ones", password(1004, 1000).repeat(1000)),
        ("a negative length", password(0xffff_ffff, 1 << 20)),
    ];
    let before = program.peak_memory();
    for (name, chunk) in &shapes {
        let mut stream = asked(&program).await;
        let taken = flood(&mut stream, chunk, ALL_BYTES).await;
        assert!(taken < TAKEN_BYTES_MAX, "{name}: {taken} bytes were taken");
        assert!(program.answers_newcomers().await, "{name}");
    }
    let mut floods = JoinSet::new();
    for number in 0..MANY {
        let mut stream = asked(&program).await;
        let (_, chunk) = shapes[number % shapes.len()].clone();
        floods.spawn(async move { flood(&mut stream, &chunk, ALL_BYTES / MANY).await });
    }
    in_time("all floods", floods.join_all()).await;
    let grown = program.growth_since(before);
    assert!(grown < GROWTH_BYTES_MAX, "memory grew by {grown} bytes");
    assert!(program.answers_newcomers().await);
}
