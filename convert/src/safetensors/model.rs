//! A directory with `config.json` and safetensors files.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use ::model::{Dtype, ModelShape};
use serde::Deserialize;

use super::header::{Header, TensorInfo};
use crate::config::{Config, read_bounded};
use crate::dtype;
use crate::error::{Error, Result};
use crate::mapped::Mapped;
use crate::matrix::Matrix;
use crate::plan::hf;

/// Largest `model.safetensors.index.json` that is read.
const LARGEST_INDEX: u64 = 64 << 20;

/// A Hugging Face model on disk whose tensors were checked against its `config.json`.
#[derive(Debug)]
pub struct HfModel {
    /// The directory.
    pub dir: PathBuf,
    /// Its `config.json`; the shape's `dtype` is that of the stored embedding where the file is silent.
    pub config: Config,
    /// Remarks on what was found, worth telling the user.
    pub remarks: Vec<String>,
    files: Vec<(Mapped, usize)>,
    tensors: HashMap<String, (usize, TensorInfo)>,
}

impl HfModel {
    /// Opens and checks the model in `dir`.
    ///
    /// # Errors
    ///
    /// If a file is missing, truncated or malformed, a tensor is missing,
    /// unknown, of an unsupported type, or contradicts `config.json`.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_checked(dir).map_err(|error| error.or_hint("fetch the model's files again, all from one source"))
    }

    fn open_checked(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            return Err(Error::bad(dir, "is not a directory").with_hint("give the directory that holds config.json"));
        }
        let config = Config::read(dir)?;
        let (names, index) = weight_files(dir)?;
        let mut model =
            Self { dir: dir.to_owned(), config, remarks: Vec::new(), files: Vec::new(), tensors: HashMap::new() };
        for name in &names {
            model.add_file(&dir.join(name))?;
        }
        if let Some(index) = index {
            model.check_index(dir, &index)?;
        }
        model.check_tensors()?;
        if !model.config.dtype_stated {
            model.config.shape.dtype = model.stored_dtype(hf::EMBEDDING)?;
        }
        Ok(model)
    }

    /// The model's shape.
    #[must_use]
    pub fn shape(&self) -> &ModelShape {
        &self.config.shape
    }

    /// The safetensors files with their header lengths, in name order.
    pub fn files(&self) -> impl Iterator<Item = (&Mapped, usize)> {
        self.files.iter().map(|(file, header)| (file, *header))
    }

    /// Bytes of all safetensors files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|(file, _)| file.bytes().len() as u64).sum()
    }

    /// A tensor's elements.
    ///
    /// # Errors
    ///
    /// If there is no such tensor or its type is not supported.
    pub fn matrix(&self, name: &str) -> Result<Matrix<'_>> {
        let (file, info) =
            self.tensors.get(name).ok_or_else(|| Error::bad(&self.dir, format!("has no tensor `{name}`")))?;
        let (map, _) = &self.files[*file];
        let dtype = stored(map.path(), info)?;
        Matrix::contiguous(&map.bytes()[info.range.clone()], dtype, &info.shape)
            .ok_or_else(|| Error::bad(map.path(), format!("holds tensor `{name}` with impossible bounds")))
    }

    fn stored_dtype(&self, name: &str) -> Result<Dtype> {
        match self.tensors.get(name) {
            Some((file, info)) => stored(self.files[*file].0.path(), info),
            None => Err(Error::bad(&self.dir, format!("has no tensor `{name}`"))),
        }
    }

    fn add_file(&mut self, path: &Path) -> Result<()> {
        let map = Mapped::open(path)?;
        let header = Header::parse(path, map.bytes())?;
        let file = self.files.len();
        for info in header.tensors {
            let name = info.name.clone();
            if let Some((other, _)) = self.tensors.insert(name.clone(), (file, info)) {
                let other = self.files[other].0.path().display();
                return Err(Error::bad(path, format!("holds tensor `{name}`, which `{other}` holds too")));
            }
        }
        self.files.push((map, header.length));
        Ok(())
    }

    fn check_index(&self, dir: &Path, index: &Index) -> Result<()> {
        for (tensor, file) in &index.weight_map {
            let held = self.tensors.get(tensor).map(|(at, _)| self.files[*at].0.path());
            if held != Some(dir.join(file).as_path()) {
                return Err(Error::bad(
                    dir.join(INDEX),
                    format!("places tensor `{tensor}` in `{file}`, which does not hold it"),
                )
                .with_hint("fetch index and shards again; they do not belong together"));
            }
        }
        Ok(())
    }

    /// Every tensor of the architecture, each with its right shape, and no other.
    fn check_tensors(&mut self) -> Result<()> {
        let expected = hf::tensors(self.shape());
        for (name, shape) in &expected {
            let Some((file, info)) = self.tensors.get(name) else {
                return Err(Error::bad(&self.dir, format!("has no tensor `{name}`, which config.json calls for"))
                    .with_hint("fetch all safetensors files of the model"));
            };
            let path = self.files[*file].0.path();
            stored(path, info)?;
            if &info.shape != shape {
                return Err(Error::bad(
                    path,
                    format!("holds tensor `{name}` of shape {:?}; config.json calls for {shape:?}", info.shape),
                )
                .with_hint("config.json and weights do not belong together; fetch both from one source"));
            }
        }
        let known: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        let mut unknown: Vec<&str> = self.tensors.keys().map(String::as_str).filter(|n| !known.contains(n)).collect();
        unknown.sort_unstable();
        for name in unknown {
            if name.ends_with(".rotary_emb.inv_freq") {
                continue; // A buffer of old Llama files: recomputed, never loaded.
            }
            if name == hf::HEAD {
                let remark = format!("`{name}` is left out: config.json ties it to the embedding");
                self.remarks.push(remark);
                continue;
            }
            return Err(Error::bad(
                &self.dir,
                format!("holds tensor `{name}`, which model_type `{}` does not have", self.config.shape.model_type),
            ));
        }
        Ok(())
    }
}

fn stored(path: &Path, info: &TensorInfo) -> Result<Dtype> {
    match info.dtype.as_str() {
        "BF16" | "F16" | "F32" => dtype::by_name(&info.dtype),
        _ => None,
    }
    .ok_or_else(|| {
        Error::unsupported(format!("element type `{}` of tensor `{}` in `{}`", info.dtype, info.name, path.display()))
            .with_hint("supported: BF16, F16, F32")
    })
}

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

/// Names of the weight files in order, and the index where there is one.
fn weight_files(dir: &Path) -> Result<(Vec<String>, Option<Index>)> {
    let path = dir.join(INDEX);
    if path.exists() {
        let text = read_bounded(&path, LARGEST_INDEX)?;
        let index: Index =
            serde_json::from_slice(&text).map_err(|e| Error::bad(&path, format!("is no valid index: {e}")))?;
        let names: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
        if names.is_empty() {
            return Err(Error::bad(&path, "names no file"));
        }
        for name in &names {
            if name.contains(['/', '\\', '\0']) || !name.ends_with(".safetensors") {
                return Err(Error::bad(&path, format!("names `{name}`, which is no plain file name of safetensors")));
            }
            if !dir.join(name).is_file() {
                return Err(Error::bad(&path, format!("names `{name}`, which is missing"))
                    .with_hint(format!("fetch `{name}` into `{}`", dir.display())));
            }
        }
        let names = names.into_iter().map(str::to_owned).collect();
        return Ok((names, Some(index)));
    }
    if dir.join(SINGLE).is_file() {
        return Ok((vec![SINGLE.to_owned()], None));
    }
    let hint = if dir.join("pytorch_model.bin").exists() || dir.join("pytorch_model.bin.index.json").exists() {
        "`pytorch_model.bin` is not read; fetch or make the safetensors form of the model"
    } else {
        "fetch the model's safetensors files"
    };
    Err(Error::bad(dir, format!("has neither `{SINGLE}` nor `{INDEX}`")).with_hint(hint))
}
