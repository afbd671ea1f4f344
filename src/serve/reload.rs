//! RELOAD: the configuration is loaded again from where it came from, and what can be applied to a running proxy is.
//!
//! Called by the console, and when the process is told to (SIGHUP). Invariant: everything that can fail, reading files above all,
//! is done before anything is applied, so that a reload applies all that a reload can, or nothing. What needs a restart is named
//! again at every reload until there is one. It blocks on files and derives verifiers: run it where blocking is allowed.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::settings::{self, Secrets};
use crate::admin::{Reload, ReloadError, Reloaded};
use crate::auth::Auth;
use crate::config::{Config, Counts, Sources};
use crate::listener::{Certificates, ClientTls};
use crate::session::Proxy;
use crate::telemetry::Log;

/// Where a configuration came from, and what besides the proxy follows it.
#[derive(Debug)]
pub struct Origins {
    /// Loaded anew by each reload.
    pub sources: Sources,
    /// The process's log, when its level is the proxy's to change.
    pub log: Option<Log>,
    /// Notified by whoever wants a reload without a console.
    pub asked: Arc<Notify>,
}

/// What a reload changes.
pub(super) struct Reloading {
    pub origins: Option<Origins>,
    /// The configuration in force.
    pub running: Mutex<Config>,
    pub proxy: Arc<Proxy>,
    pub auth: Arc<Auth>,
    pub tls: Option<Arc<ClientTls>>,
    pub secrets: Secrets,
}

impl Reload for Reloading {
    fn reload(&self) -> Result<Vec<Reloaded>, ReloadError> {
        let origins = self.origins.as_ref().ok_or(ReloadError::NoSources)?;
        let new = Config::load(&origins.sources).map_err(|errors| ReloadError::Refused(lines(&errors)))?;
        // One reload at a time; nobody else takes this lock.
        let mut running = self.running.lock();
        let refused = |error: &dyn std::fmt::Display| ReloadError::Refused(lines(error));
        let users = settings::users(&new).map_err(|error| refused(&error))?;
        let paths = settings::client_tls(&new).filter(|_| self.tls.is_some());
        let certificates = paths.as_ref().map(Certificates::read).transpose();
        let certificates = certificates.map_err(|error| refused(&error))?;
        let changes = running.changes(&new);
        if let Some(log) = &origins.log
            && running.log.level != new.log.level
        {
            log.change_level(&new.log.level)
                .map_err(|error| refused(&error))?;
        }
        // From here on nothing fails.
        let is_applied_now = |(key, counts): &(&str, Counts)| {
            *counts == Counts::AtReload && (certificates.is_some() || !key.starts_with("tls.client."))
        };
        let (now, later): (Vec<_>, Vec<_>) = changes.into_iter().partition(is_applied_now);
        let now: Vec<&'static str> = now.into_iter().map(|(key, _)| key).collect();
        running.take(&now, &new);
        if now.iter().any(|key| key.starts_with("auth.")) {
            self.secrets.renew(&running);
            self.auth.renew(&users, settings::admins(&running));
        }
        if now.contains(&"functions.safe") {
            self.proxy.databases.allow(settings::allowed(&running));
        }
        self.proxy.change_settings(settings::session(&running));
        self.proxy.store.change_limits(settings::store(&running));
        let certificates = self.tls.as_ref().zip(certificates).map(|(tls, certificates)| {
            tls.renew(certificates);
            Reloaded::ReadAgain("the certificates of tls.client")
        });
        let applied = now.into_iter().map(Reloaded::Applied);
        let waiting = later.into_iter().map(|(key, _)| Reloaded::NeedsRestart(key));
        Ok(applied.chain(certificates).chain(waiting).collect())
    }
}

impl Reloading {
    /// Reloads whenever it is asked for, until the token stops it. The outcome is logged.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let Some(asked) = self.origins.as_ref().map(|origins| Arc::clone(&origins.asked)) else {
            return;
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = asked.notified() => {}
            }
            let reloading = Arc::clone(&self);
            let reloaded = tokio::task::spawn_blocking(move || reloading.reload()).await;
            match reloaded {
                Ok(Ok(reloaded)) => {
                    let all: Vec<String> = reloaded.iter().map(ToString::to_string).collect();
                    tracing::info!(changes = ?all, "the configuration was loaded again");
                }
                Ok(Err(error)) => tracing::error!(%error, "the configuration was not loaded again"),
                Err(error) => tracing::error!(%error, "the reload ended by a panic"),
            }
        }
    }
}

fn lines(errors: &(impl std::fmt::Display + ?Sized)) -> Vec<String> {
    errors.to_string().lines().map(str::to_owned).collect()
}
