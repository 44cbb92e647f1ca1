//! The embedded broker: a file that gets one message per line, synced before it counts as confirmed.
//! Messages of shadows get a file beside it, `<file>.shadow`.

use std::path::{Path, PathBuf};

use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

use super::PublishError;
use super::connect::{Away, Reason};
use crate::outbox::{Due, Exchange};

/// An open findings file.
pub(super) struct Link {
    findings: File,
    shadow: Option<File>,
    path: PathBuf,
}

impl Link {
    pub async fn open(path: &Path) -> Result<Self, Away> {
        let findings = open(path).await;
        Ok(Self {
            findings: findings.map_err(|err| Away::new(Reason::Files, err.to_string()))?,
            shadow: None,
            path: path.to_owned(),
        })
    }

    pub async fn publish(&mut self, due: &[Due]) -> Vec<Result<(), PublishError>> {
        let findings = self.append(due, Exchange::Findings).await;
        let shadow = self.append(due, Exchange::Shadow).await;
        due.iter()
            .map(|due| match due.message.exchange {
                Exchange::Findings => findings.clone(),
                Exchange::Shadow => shadow.clone(),
            })
            .collect()
    }

    /// Appends those for one exchange, together.
    async fn append(&mut self, due: &[Due], exchange: Exchange) -> Result<(), PublishError> {
        let mut lines = Vec::new();
        for due in due.iter().filter(|due| due.message.exchange == exchange) {
            lines.extend_from_slice(&due.message.body);
            lines.push(b'\n');
        }
        if lines.is_empty() {
            return Ok(());
        }
        let file = match exchange {
            Exchange::Findings => &mut self.findings,
            Exchange::Shadow => {
                let file = match self.shadow.take() {
                    Some(file) => file,
                    None => {
                        let mut path = self.path.clone().into_os_string();
                        path.push(".shadow");
                        open(Path::new(&path)).await?
                    }
                };
                self.shadow.insert(file)
            }
        };
        write(file, &lines)
            .await
            .map_err(|err| PublishError::Connection(format!("broker.file: cannot append: {err}")))
    }
}

async fn open(path: &Path) -> Result<File, PublishError> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .await;
    file.map_err(|err| {
        PublishError::Connection(format!(
            "broker.file: cannot open {}: {err}",
            path.display()
        ))
    })
}

async fn write(file: &mut File, lines: &[u8]) -> std::io::Result<()> {
    file.write_all(lines).await?;
    file.flush().await?;
    file.sync_data().await
}
