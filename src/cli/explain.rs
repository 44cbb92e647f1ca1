//! `check --explain`: for each model and each study in some files, why it applies or does not.
//!
//! No model is loaded and nothing is decoded: headers and manifests decide, by the functions that the
//! pipeline uses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dicom::dictionary_std::tags;

use super::infer::walk;
use super::{FAILED, Refused, table};
use crate::config::Config;
use crate::dicom::dataset::{DicomFile, ReadLimits};
use crate::model::manifest::AppliesTo;
use crate::model::selection::{
    Candidate, Check, Instance, Known, checks, first_of_groups, judge, select,
};
use crate::model::{Manifest, Package, repository};

/// One file in front of every model.
struct Looked {
    name: String,
    series: String,
    instance: String,
    modality: String,
    /// One per model.
    of: Vec<OfModel>,
}

struct OfModel {
    checks: Vec<Check>,
    fit: Option<crate::model::selection::Fit>,
}

/// Explains the studies in `paths`. Without `calling_ae` the title is the one that the file names.
pub(super) fn run(
    config: &Config,
    paths: &[PathBuf],
    calling_ae: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let refused = |reason: String| Refused(anyhow::anyhow!(reason));
    let trust = config.models.trust().map_err(refused)?;
    let models =
        repository::scan_trusted(&config.models.dir, &trust).map_err(|err| Refused(err.into()))?;
    let manifests = models.iter().map(|model| &model.served.manifest);
    config.models.sites.check(manifests).map_err(refused)?;
    let models =
        repository::select(models, &config.models.only).map_err(|err| Refused(err.into()))?;
    let packages: Vec<Package> = models.into_iter().map(|model| model.served).collect();
    let mut files = Vec::new();
    for path in paths {
        walk(path, &mut files);
    }
    let mut studies: BTreeMap<String, Vec<Looked>> = BTreeMap::new();
    let mut senders: BTreeMap<String, String> = BTreeMap::new();
    let mut failed = files.is_empty();
    for path in &files {
        match look(config, &packages, path, calling_ae) {
            Ok((study, sender, looked)) => {
                senders.insert(study.clone(), sender);
                studies.entry(study).or_default().push(looked);
            }
            Err(err) => {
                eprintln!("pacs-gateway: {}: {err:#}", path.display());
                failed = true;
            }
        }
    }
    for (study, looked) in &studies {
        let sender = senders.get(study).map_or("", String::as_str);
        println!("study {study}, {} files", looked.len());
        for (text, rows) in explained(config, &packages, looked, sender) {
            println!("\n{text}");
            if !rows.is_empty() {
                let header = ["series", "condition", "holds", "found", "does not hold in"];
                println!("{}", table::render(&header, &rows));
            }
        }
        println!();
    }
    Ok(match failed {
        true => ExitCode::from(FAILED),
        false => ExitCode::SUCCESS,
    })
}

fn look(
    config: &Config,
    packages: &[Package],
    path: &Path,
    calling_ae: Option<&str>,
) -> anyhow::Result<(String, String, Looked)> {
    let file = DicomFile::read(path, &ReadLimits::default())?;
    let text = |tag| {
        let text = file.data_set().str(tag);
        text.map(|text| text.into_owned()).unwrap_or_default()
    };
    let named = file.meta().source_ae_title.clone();
    let known = Known {
        calling_ae: calling_ae.map_or_else(|| named.unwrap_or_default(), str::to_owned),
        called_ae: config.dicom.ae_title.as_str().to_owned(),
        ..Known::of_file(&file)
    };
    let instance = Instance {
        known: &known,
        data_set: file.data_set(),
    };
    let of = packages.iter().map(|package| OfModel {
        checks: checks(&package.manifest, &instance),
        fit: judge(&package.manifest, &instance),
    });
    let looked = Looked {
        name: path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        series: text(tags::SERIES_INSTANCE_UID),
        instance: text(tags::SOP_INSTANCE_UID),
        modality: known.modality.clone(),
        of: of.collect(),
    };
    Ok((text(tags::STUDY_INSTANCE_UID), known.calling_ae, looked))
}

/// A heading with the decision, and a row for each condition, for each model.
fn explained(
    config: &Config,
    packages: &[Package],
    looked: &[Looked],
    sender: &str,
) -> Vec<(String, Vec<Vec<String>>)> {
    let site = config.models.sites.of(sender);
    let at_site = |name: &str| site.is_none_or(|(_, site)| site.runs(name));
    let mut asked: Vec<(&AppliesTo, bool)> = Vec::new();
    for (index, Package { manifest, .. }) in packages.iter().enumerate() {
        let mut of = looked.iter().filter_map(|looked| looked.of.get(index));
        let fits = of.any(|of| of.fit.is_some());
        asked.push((&manifest.applies_to, fits && at_site(&manifest.name)));
    }
    let are_run = first_of_groups(&asked);
    let mut all = Vec::new();
    for (index, package) in packages.iter().enumerate() {
        let manifest = &package.manifest;
        let apply = asked.get(index).is_some_and(|(_, apply)| *apply);
        let is_run = are_run.get(index).copied().unwrap_or(false);
        let decision = match site {
            Some((site, _)) if !at_site(&manifest.name) => format!("does not run at `{site}`"),
            _ if apply && !is_run => format!(
                "does not run: another model of the group `{}` comes first",
                manifest.applies_to.group.as_deref().unwrap_or_default()
            ),
            _ => decision(manifest, index, looked),
        };
        let heading = format!("{}: {decision}", package.id());
        all.push((heading, rows(index, looked)));
    }
    all
}

/// What the model would make of the study, before a pixel is looked at.
fn decision(manifest: &Manifest, index: usize, looked: &[Looked]) -> String {
    let candidate = |looked: &Looked| {
        Some(Candidate {
            item: (),
            series: looked.series.clone(),
            instance: looked.instance.clone(),
            fit: looked.of.get(index)?.fit.clone()?,
        })
    };
    let candidates: Vec<Candidate<()>> = looked.iter().filter_map(candidate).collect();
    if candidates.is_empty() {
        return "does not apply to any instance".to_owned();
    }
    let total = looked.len();
    match select(manifest, candidates) {
        Err((refusal, _)) => format!("skipped, {refusal}"),
        Ok(selected) => match &selected.reason {
            Some(reason) if selected.inside.is_empty() => format!("skipped, {reason}"),
            Some(reason) => format!(
                "looks at {} of {total} instances; {} are left out, {reason}",
                selected.inside.len(),
                selected.outside.len()
            ),
            None => format!("looks at {} of {total} instances", selected.inside.len()),
        },
    }
}

/// The conditions of a model, series by series.
fn rows(index: usize, looked: &[Looked]) -> Vec<Vec<String>> {
    let mut by_series: BTreeMap<&str, Vec<&Looked>> = BTreeMap::new();
    for file in looked {
        by_series.entry(&file.series).or_default().push(file);
    }
    let mut rows = Vec::new();
    for (series, files) in by_series {
        let conditions = files.first().and_then(|file| file.of.get(index));
        let count = conditions.map_or(0, |of| of.checks.len());
        for place in 0..count {
            let checks: Vec<(&str, &Check)> = files
                .iter()
                .filter_map(|file| {
                    Some((file.name.as_str(), file.of.get(index)?.checks.get(place)?))
                })
                .collect();
            let Some((_, first)) = checks.first() else {
                continue;
            };
            let missed: Vec<&str> = checks
                .iter()
                .filter(|(_, check)| !check.holds)
                .map(|(name, _)| *name)
                .collect();
            let found: BTreeSet<&str> = checks.iter().map(|(_, c)| c.found.as_str()).collect();
            let modality = files.first().map_or("", |file| &file.modality);
            rows.push(vec![
                match place {
                    0 => format!("{modality} {series}"),
                    _ => String::new(),
                },
                first.condition.clone(),
                match missed.len() {
                    0 => "yes".to_owned(),
                    all if all == checks.len() => "no".to_owned(),
                    some => format!("{} of {}", checks.len() - some, checks.len()),
                },
                few(found.into_iter().collect(), ", "),
                match missed.len() == checks.len() {
                    true => String::new(),
                    false => few(missed, " "),
                },
            ]);
        }
    }
    rows
}

/// The first few, and how many more there are.
fn few(texts: Vec<&str>, between: &str) -> String {
    const MOST: usize = 4;
    let shown = texts.iter().take(MOST).copied().collect::<Vec<_>>();
    match texts.len().saturating_sub(MOST) {
        0 => shown.join(between),
        more => format!("{}{between}and {more} more", shown.join(between)),
    }
}
