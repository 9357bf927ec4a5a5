//! A server on loopback that answers as it is told, well or badly.

use super::*;
use fedveil_simulations::datasets::catalog::Content;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use tempfile::TempDir;

const CONTENT: &[u8] = b"sixty-four pixels and a digit";

/// What the server does with one connection.
#[derive(Clone)]
enum Answer {
    /// The whole content, with this status line and these headers.
    Whole(Vec<u8>),
    /// The content from the byte that is asked for, cut off after so many bytes.
    Range { cut_after: usize },
    /// The whole content, cut off after so many bytes.
    Cut { after: usize },
    /// A redirect to another path.
    Elsewhere(&'static str),
    /// Another status.
    Status(&'static str),
    /// A range that begins elsewhere than asked for.
    WrongRange,
}

/// Serves one connection for each answer, then stops. Gives the requests that it saw.
struct Server {
    url: String,
    thread: JoinHandle<Vec<String>>,
}

impl Server {
    fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/set/data.bin", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            answers.into_iter().map(|answer| serve(listener.accept().unwrap().0, &answer)).collect()
        });
        Self { url, thread }
    }

    fn requests(self) -> Vec<String> {
        self.thread.join().unwrap()
    }

    fn download(&self) -> Download {
        Download {
            file: "data.bin",
            url: Box::leak(self.url.clone().into_boxed_str()),
            bytes: CONTENT.len() as u64,
            sha256: Box::leak(hex(CONTENT).into_boxed_str()),
            unpack: Unpack::No,
        }
    }
}

fn serve(mut stream: TcpStream, answer: &Answer) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap().to_lowercase();
    let from = request
        .lines()
        .find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse::<usize>().ok())
        .unwrap_or(0);
    let head = |status: &str, length: usize, more: &str| {
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{more}\r\n")
            .into_bytes()
    };
    let all = CONTENT.len();
    let response = match answer {
        Answer::Whole(content) => [head("200 OK", content.len(), ""), content.clone()].concat(),
        Answer::Range { cut_after } => {
            let range = format!("content-range: bytes {from}-{}/{all}\r\n", all - 1);
            let rest = &CONTENT[from..];
            let sent = &rest[..rest.len().min(*cut_after)];
            [head("206 Partial Content", rest.len(), &range), sent.to_vec()].concat()
        }
        Answer::Cut { after } => [head("200 OK", all, ""), CONTENT[..*after].to_vec()].concat(),
        Answer::Elsewhere(path) => head("302 Found", 0, &format!("location: {path}\r\n")),
        Answer::Status(status) => head(status, 0, ""),
        Answer::WrongRange => {
            let range = format!("content-range: bytes 0-{}/{all}\r\n", all - 1);
            [head("206 Partial Content", all, &range), CONTENT.to_vec()].concat()
        }
    };
    stream.write_all(&response).unwrap();
    request
}

fn hex(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// As the real one, but for TLS.
fn plain_agent() -> Agent {
    config().proxy(None).build().new_agent()
}

fn get(server: &Server, folder: &TempDir) -> Result<PathBuf, Failure> {
    fetch(&plain_agent(), &server.download(), &folder.path().join("set"))
}

fn refusal(server: &Server, folder: &TempDir) -> String {
    get(server, folder).unwrap_err().message
}

fn entries(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path().join("set")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_file_is_fetched_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Answer::Whole(CONTENT.to_vec())]);
    let path = get(&server, &folder).unwrap();
    assert_eq!(fs::read(&path).unwrap(), CONTENT);
    assert_eq!(entries(&folder), ["data.bin"]);
    // Nobody listens any more, and nobody is asked.
    let again = get(&server, &folder).unwrap();
    assert_eq!(again, path);
    let requests = server.requests();
    assert!(requests.len() == 1 && requests[0].starts_with("get /set/data.bin http/1.1"), "{requests:?}");
}

#[test]
fn what_was_cut_off_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let answers =
        vec![Answer::Cut { after: 10 }, Answer::Range { cut_after: 7 }, Answer::Range { cut_after: 100 }];
    let server = Server::start(answers);
    let path = get(&server, &folder).unwrap();
    assert_eq!(fs::read(path).unwrap(), CONTENT);
    let requests = server.requests();
    let ranges: Vec<bool> = requests.iter().map(|request| request.contains("range: bytes=")).collect();
    assert_eq!(ranges, [false, true, true]);
    assert!(
        requests[1].contains("range: bytes=10-") && requests[2].contains("range: bytes=17-"),
        "{requests:?}"
    );
}

#[test]
fn another_run_goes_on_too() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("set")).unwrap();
    fs::write(folder.path().join("set/data.bin.part"), &CONTENT[..20]).unwrap();
    let server = Server::start(vec![Answer::Range { cut_after: 100 }]);
    assert_eq!(fs::read(get(&server, &folder).unwrap()).unwrap(), CONTENT);
    assert!(server.requests()[0].contains("range: bytes=20-"));
}

#[test]
fn a_server_without_ranges_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Answer::Cut { after: 10 }, Answer::Whole(CONTENT.to_vec())]);
    assert_eq!(fs::read(get(&server, &folder).unwrap()).unwrap(), CONTENT);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_beginning_that_is_too_long_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("set")).unwrap();
    fs::write(folder.path().join("set/data.bin.part"), [0; 1000]).unwrap();
    let server = Server::start(vec![Answer::Whole(CONTENT.to_vec())]);
    assert_eq!(fs::read(get(&server, &folder).unwrap()).unwrap(), CONTENT);
}

#[test]
fn a_server_that_brings_nothing_more_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut answers = vec![Answer::Cut { after: 10 }];
    answers.extend(vec![Answer::Range { cut_after: 0 }; ATTEMPTS as usize]);
    let server = Server::start(answers);
    let error = refusal(&server, &folder);
    assert!(
        error.contains(&format!("ended after 10 of {} bytes; run the command again", CONTENT.len())),
        "{error}"
    );
    assert_eq!(entries(&folder), ["data.bin.part"]);
    assert_eq!(server.requests().len(), 1 + ATTEMPTS as usize);
}

#[test]
fn wrong_content_is_deleted_and_both_digests_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = CONTENT.to_vec();
    wrong[3] ^= 1;
    let server = Server::start(vec![Answer::Whole(wrong.clone())]);
    let error = refusal(&server, &folder);
    assert!(error.contains(&hex(&wrong)) && error.contains(&hex(CONTENT)), "{error}");
    assert!(entries(&folder).is_empty());
}

#[test]
fn more_than_the_length_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Answer::Whole(vec![7; 1_000_000])]);
    let error = refusal(&server, &folder);
    assert!(error.contains(&format!("is longer than the {} bytes", CONTENT.len())), "{error}");
    assert!(entries(&folder).is_empty());
}

#[test]
fn redirects_are_followed_a_few_times() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Answer::Elsewhere("/other/place"), Answer::Whole(CONTENT.to_vec())]);
    assert_eq!(fs::read(get(&server, &folder).unwrap()).unwrap(), CONTENT);
    assert!(server.requests()[1].starts_with("get /other/place"));

    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Answer::Elsewhere("/again"); MOST_REDIRECTS as usize + 1]);
    let error = refusal(&server, &folder);
    assert!(error.starts_with("cannot fetch http://127.0.0.1"), "{error}");
}

#[test]
fn other_answers_are_told() {
    for (answer, part) in [
        (Answer::Status("404 Not Found"), "the server answers 404 Not Found"),
        (Answer::Status("503 Service Unavailable"), "the server answers 503 Service Unavailable"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(vec![answer]);
        let error = refusal(&server, &folder);
        assert!(error.contains(part) && error.contains("Without a network, put the file into"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("set")).unwrap();
    fs::write(folder.path().join("set/data.bin.part"), &CONTENT[..5]).unwrap();
    let server = Server::start(vec![Answer::WrongRange]);
    assert!(refusal(&server, &folder).contains("the server answers 206 Partial Content"));
    assert_eq!(fs::read(folder.path().join("set/data.bin.part")).unwrap(), &CONTENT[..5]);
}

#[test]
fn without_a_network_it_says_where_the_file_goes() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Vec::new());
    let download = server.download();
    server.requests();
    let error = fetch(&plain_agent(), &download, folder.path()).unwrap_err();
    assert_eq!(error.exit, Exit::General);
    assert!(error.message.contains(&format!("put the file into {}", folder.path().display())), "{error}");
}

#[test]
fn another_file_of_that_name_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("set")).unwrap();
    fs::write(folder.path().join("set/data.bin"), "mine").unwrap();
    let server = Server::start(Vec::new());
    let error = refusal(&server, &folder);
    assert!(error.contains(&hex(b"mine")) && error.contains("move it away"), "{error}");
    assert_eq!(fs::read(folder.path().join("set/data.bin")).unwrap(), b"mine");
}

#[test]
fn the_real_client_takes_no_unencrypted_way() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Vec::new());
    let Ok(agent) = agent() else {
        println!("skipped: this system has no certificates");
        return;
    };
    let error = fetch(&agent, &server.download(), folder.path()).unwrap_err().message;
    assert!(error.contains("http"), "{error}");
    assert!(server.requests().is_empty());
}

/// A tar archive of files, each in a folder of its own.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, content) in files {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = b'0';
        tar.extend_from_slice(&header);
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.extend_from_slice(&[0; 1024]);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&tar).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn archives_are_unpacked_and_not_fetched_again() {
    const CONTENTS: &[Content] =
        &[Content { file: "a.bin", bytes: 3 }, Content { file: "b.bin", bytes: 700 }];
    let folder = tempfile::tempdir().unwrap();
    let packed =
        archive(&[("set/readme.html", b"hello"), ("set/b.bin", &[9; 700]), ("set/deep/a.bin", b"abc")]);
    let server = Server::start(vec![Answer::Whole(packed.clone())]);
    let download = Download {
        file: "set.tar.gz",
        bytes: packed.len() as u64,
        sha256: Box::leak(hex(&packed).into_boxed_str()),
        unpack: Unpack::TarGz(CONTENTS),
        ..server.download()
    };
    let set = folder.path().join("set");
    for _ in 0..2 {
        assert_eq!(fetch(&plain_agent(), &download, &set).unwrap(), set);
        assert_eq!(entries(&folder), ["a.bin", "b.bin"]);
    }
    assert_eq!(fs::read(set.join("b.bin")).unwrap(), [9; 700]);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn archives_without_their_files_are_refused() {
    const CONTENTS: &[Content] = &[Content { file: "a.bin", bytes: 3 }];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.tar.gz");
    let refusal = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        crate::data::unpack::tar_gz(&path, CONTENTS, folder.path()).unwrap_err().message
    };
    assert!(refusal(&archive(&[("b.bin", b"abc")])).contains("holds no a.bin"));
    assert!(refusal(&archive(&[("a.bin", b"abcd")])).contains("a.bin of 4 bytes, accepted is 3"));
    let whole = archive(&[("a.bin", b"abc")]);
    assert!(refusal(&whole[..whole.len() / 2]).contains("set.tar.gz"));
    assert!(refusal(b"no archive").contains("set.tar.gz"));
    assert!(!folder.path().join("a.bin").exists());
}
