//! Sets that are known by name: where they come from, under which licence, and what their files must be.
//!
//! Digests are SHA-256 of the files as their publishers serve them.

/// A set that `fedveil data` knows.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// What `kind` of a [`DataSpec`](super::DataSpec) says.
    pub name: &'static str,
    /// Its folder below the folder of data; empty for what is inside the binary.
    pub folder: &'static str,
    /// What it is.
    pub summary: &'static str,
    /// Who made it.
    pub source: &'static str,
    /// Under which terms.
    pub licence: &'static str,
    /// What is fetched.
    pub downloads: &'static [Download],
}

/// A file as its publisher serves it.
#[derive(Clone, Copy, Debug)]
pub struct Download {
    /// Its name in the set's folder.
    pub file: &'static str,
    /// Where it is.
    pub url: &'static str,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in lower-case hexadecimal digits.
    pub sha256: &'static str,
    /// What is done with it.
    pub unpack: Unpack,
}

/// What is done with a file that was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpack {
    /// It is kept as it is; readers unpack gzip on the way.
    No,
    /// These files of a gzipped tar archive are put into the set's folder, without their folders.
    TarGz(&'static [Content]),
}

/// A file in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its name, without folders.
    pub file: &'static str,
    /// Its length.
    pub bytes: u64,
}

/// Every set that has a name.
pub const KNOWN: &[Known] = &[
    Known {
        name: "digits",
        folder: "",
        summary: "1,797 digits of 8 x 8 pixels; inside the program",
        source: "UCI Optical Recognition of Handwritten Digits, Alpaydin and Kaynak 1998",
        licence: "CC BY 4.0",
        downloads: &[],
    },
    Known {
        name: "mnist",
        folder: "mnist",
        summary: "70,000 digits of 28 x 28 pixels",
        source: "LeCun, Cortes and Burges",
        licence: "CC BY-SA 3.0",
        downloads: &[
            Download {
                file: "train-images-idx3-ubyte.gz",
                url: "https://storage.googleapis.com/cvdf-datasets/mnist/train-images-idx3-ubyte.gz",
                bytes: 9_912_422,
                sha256: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                unpack: Unpack::No,
            },
            Download {
                file: "train-labels-idx1-ubyte.gz",
                url: "https://storage.googleapis.com/cvdf-datasets/mnist/train-labels-idx1-ubyte.gz",
                bytes: 28_881,
                sha256: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                unpack: Unpack::No,
            },
            Download {
                file: "t10k-images-idx3-ubyte.gz",
                url: "https://storage.googleapis.com/cvdf-datasets/mnist/t10k-images-idx3-ubyte.gz",
                bytes: 1_648_877,
                sha256: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                unpack: Unpack::No,
            },
            Download {
                file: "t10k-labels-idx1-ubyte.gz",
                url: "https://storage.googleapis.com/cvdf-datasets/mnist/t10k-labels-idx1-ubyte.gz",
                bytes: 4_542,
                sha256: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                unpack: Unpack::No,
            },
        ],
    },
    Known {
        name: "fashion-mnist",
        folder: "fashion-mnist",
        summary: "70,000 articles of clothing of 28 x 28 pixels",
        source: "Xiao, Rasul and Vollgraf, Zalando Research (arXiv:1708.07747)",
        licence: "MIT",
        downloads: &[
            Download {
                file: "train-images-idx3-ubyte.gz",
                url: "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/train-images-idx3-ubyte.gz",
                bytes: 26_421_880,
                sha256: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                unpack: Unpack::No,
            },
            Download {
                file: "train-labels-idx1-ubyte.gz",
                url: "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/train-labels-idx1-ubyte.gz",
                bytes: 29_515,
                sha256: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                unpack: Unpack::No,
            },
            Download {
                file: "t10k-images-idx3-ubyte.gz",
                url: "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/t10k-images-idx3-ubyte.gz",
                bytes: 4_422_102,
                sha256: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                unpack: Unpack::No,
            },
            Download {
                file: "t10k-labels-idx1-ubyte.gz",
                url: "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/t10k-labels-idx1-ubyte.gz",
                bytes: 5_148,
                sha256: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                unpack: Unpack::No,
            },
        ],
    },
    Known {
        name: "cifar-10",
        folder: "cifar-10",
        summary: "60,000 photographs of 32 x 32 pixels in colour",
        source: "Krizhevsky, \"Learning multiple layers of features from tiny images\", 2009",
        licence: "none is stated; its authors ask to be cited",
        downloads: &[Download {
            file: "cifar-10-binary.tar.gz",
            url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            bytes: 170_052_171,
            sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            unpack: Unpack::TarGz(&[
                Content { file: "data_batch_1.bin", bytes: 30_730_000 },
                Content { file: "data_batch_2.bin", bytes: 30_730_000 },
                Content { file: "data_batch_3.bin", bytes: 30_730_000 },
                Content { file: "data_batch_4.bin", bytes: 30_730_000 },
                Content { file: "data_batch_5.bin", bytes: 30_730_000 },
                Content { file: "test_batch.bin", bytes: 30_730_000 },
            ]),
        }],
    },
    Known {
        name: "shakespeare",
        folder: "tinyshakespeare",
        summary: "1.1 MB of plays, for models of characters",
        source: "Shakespeare; gathered by Karpathy for char-rnn",
        licence: "public domain",
        downloads: &[Download {
            file: "input.txt",
            url: "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
            bytes: 1_115_394,
            sha256: "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            unpack: Unpack::No,
        }],
    },
];

/// The set of this name.
pub fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// Fashion-MNIST's classes, by label.
pub(super) const FASHION_CLASSES: [&str; 10] =
    ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"];

/// CIFAR-10's classes, by label.
pub(super) const CIFAR_CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_complete() {
        for entry in KNOWN {
            assert!(!entry.source.is_empty() && !entry.licence.is_empty(), "{}", entry.name);
            assert_eq!(entry.folder.is_empty(), entry.downloads.is_empty(), "{}", entry.name);
            for download in entry.downloads {
                assert!(download.url.starts_with("https://") && download.url.ends_with(download.file));
                let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                assert!(download.sha256.len() == 64 && download.sha256.bytes().all(hexadecimal));
                assert!(download.bytes > 0 && !download.file.contains('/'));
            }
            assert!(known(entry.name).is_some_and(|found| found.name == entry.name));
        }
        assert!(known("imagenet").is_none());
    }
}
