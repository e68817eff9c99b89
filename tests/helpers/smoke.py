"""The tests of ``-m smoke``: a cross-section in less than 90 seconds.

By the folder of `tests`, names of tests; with brackets, of one parametrisation.
A test may move to another file of its folder.
"""

import pathlib
import re

TESTS = pathlib.Path(__file__).parents[1]
SMOKE = {
  '': [
    'test_every_method_is_in_it_and_in_the_battery',
    'test_imports_run_one_way',
    'test_page_of_methods_is_as_generated',
    'test_jit_agrees[cr_mogm(mgda)]',
    'test_jit_agrees[graddrop]',
    'test_jit_agrees[pcgrad]',
    'test_jit_agrees[uncertainty]',
    'test_gramian_is_that_of_the_flat_matrix',
  ],
  'aggregators': [
    'test_structure_shapes_and_sign',
    'test_state_is_read_through_wrappers',
    'test_the_losses_of_absent_tasks_are_not_seen',
  ],
  'contrib': ['test_a_bad_gradient_leaves_no_trace'],
  'data': [
    'test_each_epoch_holds_each_example_once_in_its_own_order',
    'test_resumes_exactly_from_a_json_state',
  ],
  'diagnostics': [
    'test_similarity_by_its_definition',
    'test_non_dominated_by_its_definition',
  ],
  'experiments': ['test_csv_has_a_row_a_rate_and_nothing_where_not_reached'],
  'gradients': ['test_float64_agreement', 'test_marked_leaves_only'],
  'interop': ['test_labels_fit_by_their_paths'],
  'merging': ['test_entropy'],
  'metrics': [
    'test_delta_m_reproduces_published_tables',
    'test_uneven_batches_merge_to_the_mean_of_all_data',
  ],
  'models': ['test_shapes_and_owners[mlp]'],
  'optimizers': ['test_adatask_is_the_loop_over_tasks'],
  'pareto': ['test_ray_makes_preferred_losses_equal'],
  'sharpness': ['test_sam_moves_along_the_summed_gradient'],
  'solvers': [
    'test_finds_the_active_set',
    'test_qp_edge_cases',
    'test_two_tasks_have_a_closed_form',
  ],
  'training': [
    'test_one_trace_and_donation',
    'test_exact_routes_agree_in_float64[multi_mlp]',
    'test_round_trip_keeps_bits_and_types',
    'test_a_run_that_is_resumed_twice_finds_its_files_as_marked',
    'test_a_run_stops_before_it_saves',
    'test_new_run_then_resume',
    'test_specs',
  ],
  'weightings': [
    'test_cagrad',
    'test_famo_over_steps',
    'test_projections_are_exact',
  ],
}


def folder_of(path):
  """The folder of `tests` that a file is in; None outside."""
  if not path.is_relative_to(TESTS):
    return None
  parts = path.relative_to(TESTS).parts
  return parts[0] if len(parts) > 1 else ''


def is_smoke(path, name):
  """Whether a test, by its file and its name with parameters, is of these."""
  names = SMOKE.get(folder_of(path), ())
  return name in names or name.partition('[')[0] in names


def holds_any(path):
  """Whether a file has a test of these, told without importing it."""
  defined = set(re.findall(r'^def (test_\w+)', path.read_text(), re.M))
  names = SMOKE.get(folder_of(path), ())
  return any(name.partition('[')[0] in defined for name in names)
