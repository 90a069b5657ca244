//! `muster serve`: the same engine as a service.

use muster_common::telemetry::{hold_lines, install};
use tokio::signal::unix::{SignalKind, signal};

use super::args::ServeArguments;
use super::exit::Exit;
use crate::settings::Settings;
use crate::system::System;

pub(super) async fn serve(arguments: ServeArguments) -> anyhow::Result<Exit> {
    let settings = Settings::load(&arguments.settings, std::env::vars())?;
    hold_lines();
    install("coordinator", &settings.log, settings.log_format);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listen = arguments.listen.unwrap_or(settings.listen);
    let settings = Settings { listen, ..settings }.checked()?;
    let system = System::start(&settings, listen).await?;
    let num_slots = if arguments.no_workers { 0 } else { system.launch(false).await? };
    // The one line of standard output: scripts read the address from it.
    println!("serving on http://{}", system.address);
    tracing::info!(num_slots, unfinished = system.unfinished.len(), store = system.store, "ready");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = system.shutdown.cancelled() => {}
    }
    tracing::info!("stopping; experiments go on when `muster serve` is started again");
    system.stop().await?;
    Ok(Exit::Done)
}
