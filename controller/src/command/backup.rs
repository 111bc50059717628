//! `qctl-controller backup`, `restore` and `migrate`.
//!
//! What was put back, or taken over, is a later incarnation: agents follow it
//! and obey no controller of the earlier one any more.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use controller::lock::Lock;
use model::Epoch;
use runtime::Tasks;
use runtime::files::write_durably;
use store::{Embedded, Etcd, Store};

use super::Failure;
use super::etcd::{self, EtcdFlags};

/// How long a lead may last that is to end by itself: longer than any lease of a controller that was killed.
const LEAD: Duration = Duration::from_secs(75);
/// How long the keeper of a lease may take to end.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Make {
    /// The file in the state directory
    Embedded,
    /// An etcd
    Etcd,
}

/// Which store.
#[derive(Debug, Args)]
struct Place {
    /// The controller's state directory
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// Where jobs and nodes are remembered
    #[arg(long, value_enum, default_value_t = Make::Embedded)]
    store: Make,
    #[command(flatten)]
    etcd: EtcdFlags,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    #[command(flatten)]
    place: Place,
    /// The file to write
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    place: Place,
    /// Put it in place of what is remembered; a file is moved aside
    #[arg(long)]
    replace: bool,
    /// The smallest incarnation to give it: above the one that agents say they have obeyed
    #[arg(long, value_name = "N", default_value_t = 0)]
    incarnation: u64,
    /// The backup
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// The controller's state directory
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// Which store is to remember from now on; what the other one holds is taken over
    #[arg(long, value_enum)]
    to: Make,
    #[command(flatten)]
    etcd: EtcdFlags,
    /// Put it in place of what is remembered there; a file is moved aside
    #[arg(long)]
    replace: bool,
}

impl Backup {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Place { state_dir, store, etcd } = self.place;
        let backup = match store {
            Make::Embedded => {
                let _lock = lock(&state_dir)?;
                blocking(all_of_file(&state_dir))?
            }
            // One moment of it, also while a controller leads.
            Make::Etcd => blocking(all_of_etcd(&etcd))?,
        };
        write_durably(&self.file, &backup.encode())
            .with_context(|| format!("`{}` cannot be written", self.file.display()))?;
        let count = backup.entries.len();
        Ok(super::print(&format!("{count} records of epoch {} are in {}", backup.epoch, self.file.display()))?)
    }
}

impl Restore {
    pub(super) fn run(self) -> Result<(), Failure> {
        let bytes = std::fs::read(&self.file).with_context(|| format!("`{}` cannot be read", self.file.display()))?;
        let backup = store::Backup::decode(&bytes).map_err(etcd::told)?;
        let Place { state_dir, store, etcd } = self.place;
        let (replace, at_least) = (self.replace, self.incarnation);
        let epoch = match store {
            Make::Embedded => blocking(into_file(&state_dir, backup, replace, at_least))?,
            Make::Etcd => blocking(into_etcd(&etcd, backup, replace, at_least))?,
        };
        tell(epoch)
    }
}

impl Migrate {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { state_dir, to, etcd, replace } = self;
        let epoch = match to {
            Make::Etcd => blocking(async {
                let _lock = lock(&state_dir)?;
                let epoch = into_etcd(&etcd, all_of_file(&state_dir).await?, replace, 0).await?;
                // Else a controller that is started as before would lead what is old.
                aside(&file(&state_dir), "migrated")?;
                Ok(epoch)
            })?,
            Make::Embedded => blocking(out_of_etcd(&etcd, &state_dir, replace))?,
        };
        tell(epoch)
    }
}

fn tell(epoch: Epoch) -> Result<(), Failure> {
    let incarnation = epoch.incarnation;
    Ok(super::print(&format!(
        "incarnation {incarnation}; start the controllers: agents follow them, none of an earlier one"
    ))?)
}

fn blocking<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    runtime::tls::install_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(work)
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("store.redb")
}

fn lock(state_dir: &Path) -> Result<Lock, Failure> {
    Lock::take(state_dir).map_err(|error| {
        let hint = error.hint();
        Failure::hinted(error, hint)
    })
}

async fn all_of_file(state_dir: &Path) -> Result<store::Backup, Failure> {
    let path = file(state_dir);
    if !path.exists() {
        return Err(anyhow!("there is no store `{}`", path.display()).into());
    }
    let mut store = Embedded::open(&path).map_err(etcd::told)?;
    store::Backup::of(&mut store).await.map_err(etcd::told)
}

async fn all_of_etcd(flags: &EtcdFlags) -> Result<store::Backup, Failure> {
    let (mut store, _keeper) = flags.open(String::new())?;
    something(&mut store).await
}

async fn something(store: &mut Etcd) -> Result<store::Backup, Failure> {
    let backup = store::Backup::of(store).await.map_err(etcd::told)?;
    if backup.entries.is_empty() {
        let hint = "is --etcd-prefix the one that the controllers are given?";
        return Err(Failure::hinted(anyhow!("nothing is remembered in this etcd"), Some(hint.to_owned())));
    }
    Ok(backup)
}

async fn into_file(state_dir: &Path, backup: store::Backup, replace: bool, at_least: u64) -> Result<Epoch, Failure> {
    let aside = Aside::claim(state_dir, replace).await?;
    let epoch = aside.fill(backup, at_least).await?;
    aside.put_in_place()?;
    Ok(epoch)
}

/// A store's file, made aside and renamed: a crash on the way leaves what was there.
struct Aside {
    _lock: Lock,
    path: PathBuf,
    fresh: PathBuf,
    /// Above the incarnation of the file that it replaces.
    at_least: u64,
}

impl Aside {
    async fn claim(state_dir: &Path, replace: bool) -> Result<Self, Failure> {
        std::fs::create_dir_all(state_dir).with_context(|| format!("`{}` cannot be made", state_dir.display()))?;
        let lock = lock(state_dir)?;
        let path = file(state_dir);
        let mut at_least = 0;
        if path.exists() {
            if !replace {
                return Err(occupied(&path.display().to_string()));
            }
            // What cannot be opened cannot tell; then --incarnation does.
            if let Ok(mut old) = Embedded::open(&path)
                && let Ok(Some((epoch, _))) = old.last_batch().await
            {
                at_least = epoch.incarnation + 1;
            }
        }
        Ok(Self { _lock: lock, path, fresh: state_dir.join("store.redb.restoring"), at_least })
    }

    async fn fill(&self, backup: store::Backup, at_least: u64) -> Result<Epoch, Failure> {
        let fresh = &self.fresh;
        if fresh.exists() {
            std::fs::remove_file(fresh).with_context(|| format!("`{}` cannot be removed", fresh.display()))?;
        }
        let mut store = Embedded::open(fresh).map_err(etcd::told)?;
        backup.restore(&mut store, at_least.max(self.at_least)).await.map_err(etcd::told)
    }

    fn put_in_place(self) -> Result<(), Failure> {
        aside(&self.path, "replaced")?;
        std::fs::rename(&self.fresh, &self.path)
            .with_context(|| format!("`{}` cannot be put in place", self.fresh.display()))?;
        sync(self.path.parent().unwrap_or(Path::new(".")))
    }
}

/// Leads the etcd meanwhile, so that nothing is acknowledged there that is not taken along, nor afterwards.
async fn out_of_etcd(flags: &EtcdFlags, state_dir: &Path, replace: bool) -> Result<Epoch, Failure> {
    let aside = Aside::claim(state_dir, replace).await?;
    let (mut store, keeper) = flags.open("https://migrate.invalid".to_owned())?;
    let keeping = Tasks::new();
    keeping.spawn("keeper", keeper.run(keeping.stop_token().cancelled_owned()));
    let moved = lead_and_move(&mut store, aside).await;
    store.resign().await;
    keeping.shutdown(GRACE).await;
    moved
}

async fn lead_and_move(store: &mut Etcd, aside: Aside) -> Result<Epoch, Failure> {
    // Before anything is written: with a mistaken prefix nothing is there.
    something(store).await?;
    let led = lead(store).await?;
    let epoch = aside.fill(something(store).await?, led.incarnation + 1).await?;
    // First, so that two are never led at once; what is cut off between is mended by the same command.
    store.move_away(led).await.map_err(etcd::told)?;
    aside.put_in_place()?;
    Ok(epoch)
}

async fn into_etcd(flags: &EtcdFlags, backup: store::Backup, replace: bool, at_least: u64) -> Result<Epoch, Failure> {
    let (mut store, keeper) = flags.open("https://restore.invalid".to_owned())?;
    let keeping = Tasks::new();
    keeping.spawn("keeper", keeper.run(keeping.stop_token().cancelled_owned()));
    let restored = lead_and_restore(&mut store, backup, replace, at_least).await;
    store.resign().await;
    keeping.shutdown(GRACE).await;
    restored
}

async fn lead_and_restore(
    store: &mut Etcd,
    backup: store::Backup,
    replace: bool,
    at_least: u64,
) -> Result<Epoch, Failure> {
    if !replace && !store.load("").await.map_err(etcd::told)?.is_empty() {
        return Err(occupied("this etcd"));
    }
    lead(store).await?;
    backup.restore(store, at_least).await.map_err(etcd::told)
}

/// While this leads, no controller does, and none that was killed is waited for in vain.
async fn lead(store: &mut Etcd) -> Result<Epoch, Failure> {
    let leader = store.leader();
    // Of any incarnation: also where what is remembered was taken over elsewhere.
    let Ok(led) = tokio::time::timeout(LEAD, store.begin(0)).await else {
        let who = leader.borrow().clone().unwrap_or_default();
        let hint = "stop all controllers of this etcd, then try again".to_owned();
        return Err(Failure::hinted(anyhow!("a controller leads this etcd: {who}"), Some(hint)));
    };
    led.map_err(etcd::told)
}

fn occupied(what: &str) -> Failure {
    let hint = "with --replace what is restored takes its place; make a backup of it first";
    Failure::hinted(anyhow!("{what} remembers something already"), Some(hint.to_owned()))
}

/// Moves a store's file out of the way, where there is one.
fn aside(path: &Path, why: &str) -> Result<(), Failure> {
    if !path.exists() {
        return Ok(());
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{why}-{}", runtime::clock::now_ms()));
    std::fs::rename(path, &name).with_context(|| format!("`{}` cannot be moved aside", path.display()))?;
    sync(path.parent().unwrap_or(Path::new(".")))
}

fn sync(dir: &Path) -> Result<(), Failure> {
    let synced = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
    Ok(synced.with_context(|| format!("`{}` cannot be synced", dir.display()))?)
}
