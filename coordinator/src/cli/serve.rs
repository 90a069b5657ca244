//! `muster serve`: the same engine as a service.

use muster_common::telemetry::{hold_lines, install};
use tokio::signal::unix::{SignalKind, signal};

use super::args::ServeArguments;
use super::exit::Exit;
use crate::machine::local_slots;
use crate::settings::{Settings, Tls};
use crate::system::System;

pub(super) async fn serve(arguments: ServeArguments) -> anyhow::Result<Exit> {
    let settings = settings_of(&arguments)?;
    hold_lines();
    install("coordinator", &settings.log, settings.log_format);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // What is wrong with them is said before anything starts.
    let local = if arguments.no_workers { None } else { local_slots(&settings).await? };
    let system = System::start(&settings, settings.listen).await?;
    let num_slots = if arguments.no_workers { 0 } else { system.launch(false, local).await? };
    system.guard.announce()?;
    // The one line of standard output: scripts read the address from it.
    let scheme = if settings.is_encrypted() { "https" } else { "http" };
    println!("serving on {scheme}://{}", system.address);
    say_how_safe(&settings, &system);
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

/// What flags say is stronger than anything else, and checked with the rest.
fn settings_of(arguments: &ServeArguments) -> anyhow::Result<Settings> {
    let mut settings = Settings::read(&arguments.settings, std::env::vars())?;
    settings.listen = arguments.listen.unwrap_or(settings.listen);
    settings.advertise = arguments.advertise.clone().or(settings.advertise);
    if let Some(tls) = arguments.tls {
        settings.tls = tls;
        settings.tls_cert = None;
        settings.tls_key = None;
    }
    if arguments.tls_cert.is_some() {
        settings.tls = Tls::Off;
        settings.tls_cert.clone_from(&arguments.tls_cert);
        settings.tls_key.clone_from(&arguments.tls_key);
    }
    Ok(settings.checked()?)
}

fn say_how_safe(settings: &Settings, system: &System) {
    if let Some(fingerprint) = system.guard.fingerprint() {
        let tokens = settings.asks_for_tokens();
        tracing::info!(%fingerprint, tokens, "connections are encrypted");
    }
    if settings.is_open_to_others(system.address.ip()) {
        tracing::warn!(
            address = %system.address,
            "INSECURE: whoever reaches this address can run trainings and read all there is"
        );
    }
}
