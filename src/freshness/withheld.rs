//! Keeping the publication out of the way of statements that may change what a table's rows are identified by.
//!
//! A published table without replica identity refuses UPDATE and DELETE, and cannot be made unlogged. So before such a statement is
//! sent, the session withholds all tables, and waits until the stream has taken them out of its publication; they come back when
//! the last one who withholds is done. Invariant: while somebody withholds, and `granted` has returned, nothing is published.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use super::database::Database;

/// The state of one database.
#[derive(Debug)]
pub(super) struct Withholding {
    count: AtomicUsize,
    /// A publication of ours may hold tables.
    published: watch::Sender<bool>,
}

impl Default for Withholding {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(0),
            published: watch::Sender::new(false),
        }
    }
}

impl Withholding {
    /// Must nothing be published now?
    pub fn is_asked(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// Tables are about to be published (`true`), or none is any more. False is returned when they must not be.
    pub fn publish(&self, published: bool) -> bool {
        self.published.send_replace(published);
        // Looked at afterwards: who withholds looks in the other order, so that one of both sees the other.
        !published || !self.is_asked()
    }
}

/// Nothing is published while this lives, once `granted` has returned.
#[derive(Debug)]
pub struct Withheld(Arc<Database>);

impl Withheld {
    pub(super) fn new(database: Arc<Database>) -> Self {
        database.withholding().count.fetch_add(1, Ordering::SeqCst);
        database.stream_tell();
        Self(database)
    }

    /// Waits until nothing is published. Cancel safe.
    pub async fn granted(&self) {
        let mut published = self.0.withholding().published.subscribe();
        // The sender lives as long as the database.
        published.wait_for(|published| !published).await.ok();
    }
}

impl Drop for Withheld {
    fn drop(&mut self) {
        if self.0.withholding().count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.stream_tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::freshness::guards::Guards;

    #[tokio::test]
    async fn who_withholds_waits_for_what_is_published_and_nothing_is_meanwhile() {
        let names = (Arc::default(), Arc::default());
        let database = Arc::new(Database::new(
            "shop".into(),
            1,
            names.0,
            names.1,
            Guards::default(),
        ));
        assert!(database.stream_publish(true));
        let (one, other) = (database.stream_withhold(), database.stream_withhold());
        assert!(!database.stream_publish(true), "not while somebody withholds");
        let waits = timeout(Duration::ZERO, one.granted()).await;
        assert!(waits.is_err(), "something is published");
        database.stream_publish(false);
        let limit = Duration::from_secs(60);
        timeout(limit, one.granted()).await.expect("nothing is published");
        drop(one);
        assert!(database.stream_is_withheld());
        drop(other);
        assert!(!database.stream_is_withheld() && database.stream_publish(true));
        timeout(limit, database.stream_news())
            .await
            .expect("the stream is told");
    }
}
