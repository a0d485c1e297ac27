"""docs/security.md promises what tests hold: each of its sentences has one, and none is lost."""

import importlib
import re

import pytest

from ssd_centernet.cli.main import COMMANDS
from tests.process import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
# Words of a sentence, list entry or row of the page -> file and first words of the test.
HELD = {
    "Read this before": "security/test_page: each_sentence_has_a_test",
    "What this page": "security/test_page: each_sentence_has_a_test",
    "are only read, whoever": "security/test_data_files: broken_annotations_are_told_in_a_line",
    "run directories: settings": "security/test_saved_settings: load_needs_permission",
    "annotations and label maps": "security/test_data_files: label_maps_that_are_no_text_are_told",
    "files of detections.": "security/test_data_files: booleans_lists_and_digits",
    "runs with your rights": "security/test_saved_settings: what_belongs_to_a_run_is_told",
    "gin files that you name": "security/test_saved_settings: what_belongs_to_a_run_is_told",
    "files of a study": "cli/test_ablate: a_study_says_what_is_imported_as_a_command_line_does",
    "modules that you allow": "security/test_saved_settings: an_allowed_module_is_imported_with",
    "exported SavedModels": "export/test_export:",
    "of a run may set": "security/test_saved_settings: settings_of_a_run_name_parts_and",
    "imports a module": "security/test_saved_settings: no_form_of_import_gets_through",
    "The error names every": "security/test_saved_settings: the_error_names_every_import_the",
    "names functions of modules": "security/test_saved_settings: names_that_this_process_knows_of",
    "names what acts": "security/test_saved_settings: settings_of_a_run_name_parts_and",
    "includes another file": "security/test_saved_settings: files_outside_of_the_recipes_are_not",
    "describes objects": "security/test_saved_settings: settings_that_no_training_writes_are",
    "belongs to a run if": "security/test_saved_settings: what_belongs_to_a_run_is_told",
    "is held to the same rules": "security/test_saved_settings: what_belongs_to_a_run_is_told",
    "Any other gin file": "security/test_saved_settings: what_belongs_to_a_run_is_told",
    "never adds the directory": "security/test_saved_settings: a_run_is_not_put_on_the_path",
    "TensorFlow checkpoint": "weights/test_readers:",
    "`.keras`": "security/test_keras_files: an_archive_names_nothing_of_other",
    "`.h5`": "security/test_data_files: code_in_an_hdf5_file_of_weights_is",
    "`.npz`": "security/test_data_files: a_pickle_under_any_name_of_weights",
    "`.safetensors`": "security/test_data_files: a_pickle_under_any_name_of_weights",
    "`.pth`": "weights/test_torch_files: hostile_files_are_a_clear_error_and",
    "--flagfile": "cli/test_flags:",
    "= 'decoded'` keeps": "data/test_decoded: what_is_damaged_there_is_refused",
    "FFmpeg inside OpenCV": "predict/test_video: files_that_are_no_video_are_refused",
    "Addresses, and lists": "predict/test_video: what_is_no_file_is_refused",
    "makes it of the package": "native/test_library: the_command_finds_what_is_built",
    "is loaded only if its name": "native/test_library: what_others_can_write_to_is_not_loaded",
    "keeps out others": "native/test_library: what_others_can_write_to_is_not_loaded",
    "TFDS builders name": "security/test_tfds: classes_of_other_modules_are_refused",
    "Only those of tensorflow": "security/test_tfds: classes_of_other_modules_are_refused",
    "do not lead out": "security/test_data_files: names_of_images_do_not_lead_out_of",
    "YAML makes no objects": "security/test_data_files: yaml_makes_no_objects",
    "XML reads no other": "security/test_data_files: xml_reads_no_other_file_and_does_not",
    "show names as text": "evaluation/test_report: names_are_escaped",
    "are written as escapes": "security/test_terminal: file_names_class_names_settings_and",
    "Pictures of more than": "data/test_scan: a_bomb_is_refused_by_its_header",
    "and in tiles of up to": "predict/test_tiled: a_bomb_is_refused_by_its_header",
    "Pipes and devices": "data/readers/test_formats: pipes_and_devices_are_refused_and",
    "Entities in XML": "security/test_data_files: xml_reads_no_other_file_and_does_not",
    "that unpacks to very much": "security/test_keras_files: archives_that_unpack_to_very_much_are",
    "Records are checked before": "data/test_scan: pictures_that_are_cut_short_are_named",
    "is refused by its head": "data/test_scan: a_bomb_is_refused_by_its_header",
    "Not bounded": "security/test_page: what_is_not_bounded_is_read_without_a",
    "yours to limit": "security/test_page: what_is_not_bounded_is_read_without_a",
    "listens on this machine": "serve/test_guard: this_machine_is_answered",
    "it asks nobody": "serve/test_guard: addresses_of_this_machine_are_known",
    "Requests under other names": "serve/test_server: other_names_and_other_sites_are_refused",
    "only JPEG, PNG and WebP": "serve/test_pictures: other_kinds_are_not_opened",
    "promises few enough": "serve/test_pictures: what_is_made_to_be_slow_is_refused",
    "Bodies, waiting requests": "serve/test_server: limits_are_kept_and_a_signal",
    "opens servers of TensorFlow": "data_service/test_worker: a_worker_answers_this_machine_and",
    "encrypt nothing, and run": "data_service/test_worker: another_address_of_this_machine_is",
    "know no other protocol": "data_service/test_worker: another_address_of_this_machine_is",
    "the kernel drops packets": "data_service/test_worker: other_machines_are_kept_out",
    "a worker refuses to start": "data_service/test_worker: what_a_worker_must_not_do_is",
    "users of the machine": "data_service/test_worker: a_worker_answers_this_machine_and",
    "is refused without `--closed": "data_service/test_worker: what_a_worker_must_not_do_is",
    "nobody whom you do not trust": "data_service/test_worker: another_address_of_this_machine_is",
    "nothing checks it": "data_service/test_worker: another_address_of_this_machine_is",
    "Use a firewall": "data_service/test_worker: another_address_of_this_machine_is",
    "can ask whether a file": "data_service/test_feed: other_records_of_a_worker_are",
    "believes its workers": "data_service/test_feed: a_worker_that_would_make_other",
    "what to put in front": "serve/test_server: slow_clients_are_ended_and_hold_up",
    "uses no network": "security/test_data_files: reading_uses_no_network",
    "Published weights are fetched": "weights/test_fetching:",
    "Otherwise a command connects": "security/test_data_files: reading_uses_no_network",
    "do not report their use": "export/test_openvino: nothing_is_reported_to_the_makers",
    "talk to each other": "distributed/test_collectives:",
    "listen on every address": "engines/test_workers: a_lost_launch_a_halted_process",
    "written beside their target": "test_files: who_may_read_is_what_the_umask_says",
    "runs code, writes outside": "security/test_page: each_sentence_has_a_test",
    "Add the file": "security/test_page: each_sentence_has_a_test",
    "weights:": "security/test_data_files: a_pickle_under_any_name",
    "with one line that names": "security/test_data_files: broken_annotations_are_told",
    "a SavedModel is a program": "export/test_export:",
    "that it has just written": "export/test_export:",
    "If you know the run": "security/test_saved_settings: load_needs_permission",
    "has the working directory on it": "security/test_saved_settings: commands_refuse_it",
}


def _claims():
    """The sentences, list entries and rows of the page, without heads and the table of commands."""
    for block in re.split(r"\n\n+", PAGE):
        if block.startswith("#") or block.startswith("| command |"):
            continue
        lines = re.sub(r"\n(?![|*])\s*", " ", block).splitlines()
        for line in lines:
            if re.match(r"\|(-|\s*file \|)", line):
                continue
            text = line.strip("* |")
            yield from [text] if line.startswith("|") else re.split(r"(?<=[.;:]) (?=[A-Z`])", text)


def test_each_sentence_has_a_test():
    claims = list(_claims())
    unheld = [one for one in claims if not any(words in one for words in HELD)]
    # A sentence that only leads to the list below it claims nothing.
    assert [one for one in unheld if not one.endswith((":", "where it"))] == []
    assert [words for words in HELD if not any(words in one for one in claims)] == []


@pytest.mark.parametrize("place", sorted(set(HELD.values())))
def test_the_tests_are_there(place):
    module, _, name = place.partition(":")
    text = (ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8")
    assert f"def test_{name.strip()}" in text


def test_the_table_has_every_command():
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert [name for name in dict.fromkeys(rows)] == list(COMMANDS)
    for name in COMMANDS:
        importlib.import_module(f"ssd_centernet.cli.{name}")


def test_what_is_not_bounded_is_read_without_a_limit(tmp_path):
    """The page warns of it; where a limit comes, the sentence must go."""
    from ssd_centernet import config

    path = tmp_path / "config.gin"
    path.write_text("ResNet.widths = (1000000000,)\n")
    config.parse([path])
