//! `check`: what `serve` would refuse, and whether the models still answer as they did in training.

use std::process::ExitCode;

use super::{ConfigArgs, REFUSED, Refused, runtime, table};
use crate::app::load_models;
use crate::model::InputSpec;
use crate::registry::{Config, Loader, Model, Served};

pub(super) fn run(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let config = args.load()?;
    runtime()?.block_on(async {
        let (models, loader) = load_models(&config).await.map_err(Refused)?;
        let mut rows = Vec::new();
        let mut good = true;
        for served in models.iter().flat_map(Model::running) {
            let (verdict, passed) = golden_cases(&loader, served, &config.models).await;
            good &= passed;
            rows.push(row(served, config.inference.provider.as_str(), verdict));
        }
        let header = [
            "model",
            "version",
            "role",
            "signature",
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
        served.role.as_str().to_owned(),
        served.package.signature.as_str().to_owned(),
        conditions.join(" "),
        input,
        labels.join(", "),
        provider.to_owned(),
        golden,
    ]
}

async fn golden_cases(loader: &Loader, served: &Served, config: &Config) -> (String, bool) {
    match loader.prove(served, config.require_golden).await {
        Ok((0, _)) => ("none".to_owned(), true),
        Ok((count, worst)) => (format!("{count} passed, off by {worst:.0e} at most"), true),
        Err(err) => {
            eprintln!("pacs-gateway: {}: {err:#}", served.package.id());
            ("FAILED".to_owned(), false)
        }
    }
}
