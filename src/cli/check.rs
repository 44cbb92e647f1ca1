//! `check`: what `serve` would refuse, and whether the models still answer as they did in training.

use std::process::ExitCode;

use super::{ConfigArgs, REFUSED, Refused, golden, runtime, table};
use crate::model::InputSpec;
use crate::pipeline::Served;

pub(super) fn run(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let config = args.load()?;
    runtime()?.block_on(async {
        let models = golden::models(&config).await.map_err(Refused)?;
        let mut rows = Vec::new();
        let mut good = true;
        for served in &models {
            let (verdict, passed) = golden_cases(served).await?;
            good &= passed;
            rows.push(row(served, config.inference.provider.as_str(), verdict));
        }
        let header = [
            "model",
            "version",
            "applies to",
            "input",
            "labels",
            "provider",
            "golden",
        ];
        println!("{}", table::render(&header, &rows));
        Ok(if good {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(REFUSED)
        })
    })
}

fn row(served: &Served, provider: &str, golden: String) -> Vec<String> {
    let manifest = &served.package.manifest;
    let applies = &manifest.applies_to;
    let input = match manifest.input() {
        _ if manifest.is_ensemble_of_models() => manifest
            .ensemble
            .as_ref()
            .map(|own| format!("{} of {}", own.combine.as_str(), own.models.join(", ")))
            .unwrap_or_default(),
        Ok((name, InputSpec::Image(image))) => {
            format!("{name} {}×{}×{}", image.channels, image.rows, image.columns)
        }
        Ok((name, InputSpec::Volume(volume))) => {
            let shape: Vec<String> = volume.shape().iter().map(usize::to_string).collect();
            format!("{name} {}", shape.join("×"))
        }
        Ok((name, InputSpec::Features(features))) => format!("{name} {} features", features.len()),
        Err(reason) => reason,
    };
    let labels = manifest.output.labels();
    let labels: Vec<&str> = labels.iter().map(|label| label.label).collect();
    let conditions = [&applies.modality, &applies.body_part, &applies.view];
    let conditions: Vec<String> = conditions
        .iter()
        .filter(|list| !list.is_empty())
        .map(|list| list.join("|"))
        .collect();
    vec![
        manifest.name.clone(),
        manifest.version.clone(),
        conditions.join(" "),
        input,
        labels.join(", "),
        provider.to_owned(),
        golden,
    ]
}

async fn golden_cases(served: &Served) -> anyhow::Result<(String, bool)> {
    let cases = served.package.golden_cases()?;
    let mut worst: f64 = 0.0;
    for case in &cases {
        match golden::run(served, case).await {
            Ok(difference) => worst = worst.max(difference),
            Err(err) => {
                let name = case.file_name().unwrap_or_default().to_string_lossy();
                eprintln!(
                    "pacs-gateway: {}: golden case {name}: {err:#}",
                    served.package.id()
                );
                return Ok((format!("{name} FAILED"), false));
            }
        }
    }
    Ok(match cases.len() {
        0 => ("none".to_owned(), true),
        count => (format!("{count} passed, off by {worst:.0e} at most"), true),
    })
}
