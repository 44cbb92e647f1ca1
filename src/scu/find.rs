//! C-FIND (PS3.4 C.4.1): how many instances of a study does a PACS have?
//!
//! One question in the Study Root model, at the level of the study, for Number of Study Related
//! Instances (0020,1208). That is an optional key (PS3.4 Table C.6-5): a PACS that does not return
//! it is not asked at deeper levels, which would list every instance.

use std::time::Duration;

use dicom::dictionary_std::tags;
use tokio::time::timeout;

use super::connection::Connection;
use super::{ScuError, Target};
use crate::dicom::command::{Command, CommandField};
use crate::dicom::dataset::{DataSet, ReadLimits, Writer, read_data_set};
use crate::dicom::status::Category;
use crate::dicom::transfer_syntax::{EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN};
use crate::dicom::{AeTitle, STUDY_ROOT_FIND, Status, StudyInstanceUid};

/// Matches read at most. The key is unique, so there is one, or one for each patient that the study
/// was filed under; a PACS that ignores the key would send all it has.
const MAX_MATCHES: usize = 16;

/// How long a peer may take to confirm the release.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a PACS says of a study.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It does not know the study.
    Nothing,
    /// It knows the study and does not return the count.
    Uncounted,
    /// It has this many instances of it.
    Instances(u32),
}

/// [`find_study`] for who needs the count only: `None` when the PACS does not know the study or
/// does not count.
///
/// # Errors
/// As [`find_study`].
pub async fn find_instances(
    target: &Target,
    calling: &AeTitle,
    study: &StudyInstanceUid,
    patience: Duration,
) -> Result<Option<u32>, ScuError> {
    let found = find_study(target, calling, study, patience).await?;
    Ok(match found {
        Found::Instances(count) => Some(count),
        Found::Nothing | Found::Uncounted => None,
    })
}

/// Asks a PACS for the number of instances of a study. `patience` is for connection,
/// association and answer together; single waits end after a minute, the release after a second.
///
/// # Errors
/// [`ScuError`]: the PACS cannot be reached, refuses, fails, or contradicts itself.
pub async fn find_study(
    target: &Target,
    calling: &AeTitle,
    study: &StudyInstanceUid,
    patience: Duration,
) -> Result<Found, ScuError> {
    // Dropped in the middle of it, the connection closes, which ends the association (PS3.8 AA-4).
    let (connection, answer) = timeout(patience, ask(target, calling, study))
        .await
        .map_err(|_| ScuError::TimedOut("query"))??;
    // The answer is in: how long the peer takes to let go changes nothing.
    let farewell = async {
        match &answer {
            Ok(_) | Err(ScuError::Find(_)) => connection.release().await,
            Err(_) => connection.abort().await,
        }
    };
    let _ = timeout(FAREWELL, farewell).await;
    answer
}

/// The answer, and the association to be ended.
async fn ask(
    target: &Target,
    calling: &AeTitle,
    study: &StudyInstanceUid,
) -> Result<(Connection, Result<Found, ScuError>), ScuError> {
    let syntaxes = vec![EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN];
    let contexts = vec![(STUDY_ROOT_FIND, syntaxes)];
    let mut connection = Connection::establish(target, calling, contexts).await?;
    let answer = question(&mut connection, study).await;
    Ok((connection, answer))
}

async fn question(
    connection: &mut Connection,
    study: &StudyInstanceUid,
) -> Result<Found, ScuError> {
    let (context, syntax) = connection
        .first_accepted()
        .ok_or(ScuError::UnexpectedAnswer("no presentation context"))?;
    let identifier = identifier(&syntax, study)
        .ok_or(ScuError::UnexpectedAnswer("transfer syntax not proposed"))?;
    let request = Command {
        affected_sop_class: Some(STUDY_ROOT_FIND.to_owned()),
        priority: Some(0),
        ..Command::new(CommandField::C_FIND)
    };
    let request = connection.request(context, request, &identifier).await?;
    let mut found = Found::Nothing;
    for _ in 0..=MAX_MATCHES {
        let (status, data_set) = connection.answer(&request).await?;
        match (status.category(), data_set) {
            (Category::Pending, Some(bytes)) => {
                let limits = ReadLimits::default();
                let data_set = read_data_set(&bytes, &syntax, &limits)
                    .map_err(|_| ScuError::UnexpectedAnswer("match cannot be read"))?;
                found = with(found, matched(&data_set, study)?)?;
            }
            (Category::Pending, None) => {
                return Err(ScuError::UnexpectedAnswer("match without a data set"));
            }
            _ if status == Status::SUCCESS => return Ok(found),
            _ => return Err(ScuError::Find(status)),
        }
    }
    Err(ScuError::UnexpectedAnswer("more matches than a study has"))
}

/// The identifier (PS3.4 C.4.1.1.3): the level, the study, and the key to be returned.
fn identifier(transfer_syntax: &str, study: &StudyInstanceUid) -> Option<Vec<u8>> {
    let mut writer = Writer::new(transfer_syntax)?;
    writer
        .text(tags::QUERY_RETRIEVE_LEVEL, *b"CS", "STUDY")
        .text(tags::STUDY_INSTANCE_UID, *b"UI", study.as_str())
        .text(tags::NUMBER_OF_STUDY_RELATED_INSTANCES, *b"IS", "");
    Some(writer.finish())
}

/// What one match says of `study`. One of another study comes from a PACS that ignores the key, and
/// says nothing.
fn matched(data_set: &DataSet, study: &StudyInstanceUid) -> Result<Found, ScuError> {
    if data_set.uid(tags::STUDY_INSTANCE_UID).as_deref() != Some(study.as_str()) {
        return Ok(Found::Nothing);
    }
    let key = tags::NUMBER_OF_STUDY_RELATED_INSTANCES;
    if !data_set.has_value(key) {
        return Ok(Found::Uncounted);
    }
    data_set
        .int(key)
        .and_then(|count| u32::try_from(count).ok())
        .map(Found::Instances)
        .ok_or(ScuError::UnexpectedAnswer("count is no number"))
}

/// Two matches for one study must agree: which of them to believe is not for us to say.
fn with(one: Found, other: Found) -> Result<Found, ScuError> {
    match (one, other) {
        (Found::Instances(a), Found::Instances(b)) if a != b => {
            Err(ScuError::UnexpectedAnswer("two counts for one study"))
        }
        (Found::Instances(count), _) | (_, Found::Instances(count)) => Ok(Found::Instances(count)),
        (Found::Nothing, other) => Ok(other),
        (Found::Uncounted, _) => Ok(Found::Uncounted),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer(study: &str, count: Option<&str>) -> Result<Found, ScuError> {
        let mut writer = Writer::new(IMPLICIT_VR_LITTLE_ENDIAN).unwrap();
        writer.text(tags::STUDY_INSTANCE_UID, *b"UI", study);
        if let Some(count) = count {
            writer.text(tags::NUMBER_OF_STUDY_RELATED_INSTANCES, *b"IS", count);
        }
        let bytes = writer.finish();
        let data_set =
            read_data_set(&bytes, IMPLICIT_VR_LITTLE_ENDIAN, &ReadLimits::default()).unwrap();
        matched(&data_set, &StudyInstanceUid::parse("1.2.3").unwrap())
    }

    #[test]
    fn a_match_counts_for_its_own_study_only() {
        assert_eq!(
            answer("1.2.3", Some("12")).unwrap(),
            Found::Instances(12),
            "the study"
        );
        assert_eq!(answer("1.2.4", Some("12")).unwrap(), Found::Nothing);
        assert_eq!(answer("1.2.3", Some("")).unwrap(), Found::Uncounted);
        assert_eq!(answer("1.2.3", None).unwrap(), Found::Uncounted);
        for nonsense in ["-1", "many", "99999999999"] {
            assert!(answer("1.2.3", Some(nonsense)).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn matches_that_disagree_are_no_answer() {
        use Found::{Instances, Nothing, Uncounted};
        assert_eq!(with(Nothing, Instances(3)).unwrap(), Instances(3));
        assert_eq!(with(Instances(3), Instances(3)).unwrap(), Instances(3));
        assert_eq!(with(Uncounted, Nothing).unwrap(), Uncounted);
        assert!(with(Instances(3), Instances(4)).is_err());
    }

    #[test]
    fn the_question_is_the_study_and_its_count() {
        let study = StudyInstanceUid::parse("1.2.3").unwrap();
        let bytes = identifier(EXPLICIT_VR_LITTLE_ENDIAN, &study).unwrap();
        let expected: [&[u8]; 3] = [
            b"\x08\x00\x52\x00CS\x06\x00STUDY ",
            b"\x20\x00\x0d\x00UI\x06\x001.2.3\x00",
            b"\x20\x00\x08\x12IS\x00\x00",
        ];
        assert_eq!(bytes, expected.concat());
        assert!(identifier("1.2.840.10008.1.2.2", &study).is_none());
    }
}
