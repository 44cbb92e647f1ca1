//! The embedded broker: a file that gets one message per line, synced before it counts as confirmed.

use std::path::Path;

use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

use super::PublishError;
use crate::outbox::Due;

/// An open findings file.
pub(super) struct Link {
    file: File,
}

impl Link {
    pub async fn open(path: &Path) -> Result<Self, PublishError> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .await;
        file.map(|file| Self { file }).map_err(|err| {
            PublishError::Connection(format!(
                "broker.file: cannot open {}: {err}",
                path.display()
            ))
        })
    }

    pub async fn publish(&mut self, due: &[Due]) -> Vec<Result<(), PublishError>> {
        let mut lines = Vec::new();
        for due in due {
            lines.extend_from_slice(&due.message.body);
            lines.push(b'\n');
        }
        let outcome = self
            .append(&lines)
            .await
            .map_err(|err| PublishError::Connection(format!("broker.file: cannot append: {err}")));
        due.iter().map(|_| outcome.clone()).collect()
    }

    async fn append(&mut self, lines: &[u8]) -> std::io::Result<()> {
        self.file.write_all(lines).await?;
        self.file.flush().await?;
        self.file.sync_data().await
    }
}
