//! `check`: what `serve` would refuse, and whether the models still answer as they did in training.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{ConfigArgs, REFUSED, Refused, explain, runtime, table};
use crate::app::load_models;
use crate::model::InputSpec;
use crate::model::manifest::NamedInput;
use crate::registry::{Config, Loader, Model, Served};

/// Arguments of `check`.
#[derive(Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Instead: say for each model why it applies to these files and folders or does not.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    explain: Vec<PathBuf>,
    /// With --explain: the calling AE title of the sender, instead of the one in the files.
    #[arg(long, value_name = "TITLE", requires = "explain")]
    calling_ae: Option<String>,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?;
    if !args.explain.is_empty() {
        return explain::run(&config, &args.explain, args.calling_ae.as_deref());
    }
    let files = config.check_files();
    files.map_err(|reason| Refused(anyhow::anyhow!(reason)))?;
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
    let inputs = manifest.inputs().unwrap_or_default();
    let inputs = inputs
        .into_iter()
        .map(|NamedInput { name, spec, .. }| match spec {
            InputSpec::Image(image) => {
                format!("{name} {}×{}×{}", image.channels, image.rows, image.columns)
            }
            InputSpec::Volume(volume) => {
                let shape: Vec<String> = volume.shape().iter().map(usize::to_string).collect();
                format!("{name} {}", shape.join("×"))
            }
            InputSpec::Features(features) => format!("{name} {} features", features.len()),
        });
    let members = manifest
        .ensemble
        .iter()
        .filter(|own| !own.models.is_empty());
    let members =
        members.map(|own| format!("{} of {}", own.combine.as_str(), own.models.join(", ")));
    let input = inputs.chain(members).collect::<Vec<_>>().join(", ");
    let labels = manifest.output.labels();
    let labels: Vec<&str> = labels.iter().map(|label| label.label).collect();
    let lists = [&applies.modality, &applies.body_part, &applies.view];
    let lists = lists.into_iter().filter(|list| !list.is_empty());
    let lists = lists.map(|list| list.join("|"));
    let rules = applies.rules.iter().map(ToString::to_string);
    let conditions: Vec<String> = lists.chain(rules).collect();
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
    match loader.prove(served, config).await {
        Ok((0, _)) => ("none".to_owned(), true),
        Ok((count, worst)) => (format!("{count} passed, off by {worst:.0e} at most"), true),
        Err(err) => {
            eprintln!("pacs-gateway: {}: {err:#}", served.package.id());
            ("FAILED".to_owned(), false)
        }
    }
}
