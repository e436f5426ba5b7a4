"""Compiled programs read as text: written ones with known answers, and real ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from painformer_jax.planning import hlo
from painformer_jax.planning.collectives import Collective, collectives
from painformer_jax.planning.traffic import traffic

PROGRAM = """HloModule jit_step, is_scheduled=true, num_partitions=8

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%inside (p: f32[16]) -> f32[16] {
  %p = f32[16]{0} parameter(0)
  ROOT %double = f32[16]{0} add(%p, %p)
}

%scatter (q: f32[64]) -> f32[8] {
  %q = f32[64]{0} parameter(0)
  ROOT %rs = f32[8]{0} reduce-scatter(%q), replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%add
}

%body (state: (s32[], f32[16])) -> (s32[], f32[16]) {
  %state = (s32[], f32[16]{0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %v = f32[16]{0} get-tuple-element(%state), index=1
  %reduced = f32[16]{0} all-reduce(%v), replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
  ROOT %next = (s32[], f32[16]{0}) tuple(%i, %reduced)
}

%condition (state: (s32[], f32[16])) -> pred[] {
  %state = (s32[], f32[16]{0}) parameter(0)
  ROOT %always = pred[] constant(true)
}

ENTRY %main (a: f32[16], b: bf16[4,8], c: f32[64]) -> f32[16] {
  %a = f32[16]{0} parameter(0), metadata={op_name="all-reduce(%fake)"}
  %b = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(1)
  %c = f32[64]{0} parameter(2)
  %zero = s32[] constant(0)
  %fused = f32[16]{0:T(256)S(1)} fusion(%a), kind=kLoop, calls=%inside
  %start = (f32[8]{0}, f32[64]{0}) async-start(%c), calls=%scatter
  %scattered = f32[8]{0} async-done(%start)
  %gather = (bf16[4,8]{1,0}, /*index=1*/bf16[32,8]{1,0}) all-gather-start(%b), replica_groups={}, dimensions={0}
  %gathered = bf16[32,8]{1,0} all-gather-done(%gather)
  %both = (f32[16]{0}, f32[8]{0}) all-reduce(%fused, %scattered), replica_groups=mesh['x'=4,'y'=2] {'x'}, to_apply=%add
  %part = ((f32[64]{0}), f32[32]{0:S(1)}, s32[]{:S(2)}) slice-start(%c), slice={[0:32]}
  %half = f32[32]{0:S(1)} slice-done(%part)
  %joined = f32[64]{0:S(1)} custom-call(%half, %half), custom_call_target="ConcatBitcast"
  %fetch = (f32[64]{0:S(1)}, f32[64]{0}, u32[]{:S(2)}) copy-start(%c)
  %fetched = f32[64]{0:S(1)} copy-done(%fetch)
  %first = f32[16]{0} get-tuple-element(%both), index=0
  %init = (s32[], f32[16]{0}) tuple(%zero, %first)
  %loop = (s32[], f32[16]{0}) while(%init), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %result = f32[16]{0} get-tuple-element(%loop), index=1
}
"""  # noqa: E501


def test_collectives_by_kind_and_group_with_loops_unrolled():
  module = hlo.parse(PROGRAM)
  assert module.entry == 'main' and module.devices == 8
  assert collectives(module) == [
    Collective(kind='all-reduce', group=2, count=5, bytes=5 * 64),
    Collective(kind='reduce-scatter', group=8, count=1, bytes=256),
    Collective(kind='all-reduce', group=4, count=1, bytes=64 + 32),
    Collective(kind='all-gather', group=8, count=1, bytes=64),
  ]


def grouped(attributes, *, opcode='all-reduce', devices=8, node_of=None, header=''):
  """Collectives of a program of one line."""
  return collectives(
    hlo.parse(f"""HloModule m, num_partitions={devices}
{header}
ENTRY %main (p: f32[256]) -> f32[256] {{
  %p = f32[256]{{0}} parameter(0)
  ROOT %r = f32[256]{{0}} {opcode}(%p), channel_id=1, {attributes}, use_global_device_ids=true
}}"""),
    node_of=node_of,
  )


NODES = [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
  ('attributes', 'group', 'nodes'),
  [
    ('replica_groups={{0,1},{2,3},{4,5},{6,7}}', 2, 1),
    ('replica_groups={{0,4},{1,5},{2,6},{3,7}}', 2, 2),
    ('replica_groups={{0,1,2},{3,4,5},{6,7}}', 3, 2),
    ('replica_groups={}', 8, 2),
    ('replica_groups=[2,4]<=[8]', 4, 1),
    ('replica_groups=[4,2]<=[2,4]T(1,0)', 2, 2),
    ('replica_groups=[2,4]<=[2,2,2]T(1,0,2)', 4, 2),
    ('replica_groups=[1,8]<=[8]', 8, 2),
    ("replica_groups=mesh['a'=2,'b'=4] {'b'}", 4, 1),
    ("replica_groups=mesh['a'=2,'b'=4] {'a'}", 2, 2),
    ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", 8, 2),
    ("replica_groups=mesh['a'=8] {'a':(1)2}", 2, 2),
    ("replica_groups=mesh['a'=8] {'a':(4)2}", 2, 1),
    ("replica_groups=mesh['a'=8] {'a':(2)4}", 4, 1),
    ("replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}", 4, 2),
    ("replica_groups=mesh['a'=4,'b'=2], device_ids=([8]<=[2,4]T(1,0)) {'b'}", 2, 2),
    ("replica_groups=mesh['a'=4,'b'=2], device_ids=(0,4,1,5,2,6,3,7) {'a'}", 4, 1),
  ],
)
def test_members_of_groups_say_how_many_nodes_they_span(attributes, group, nodes):
  (found,) = grouped(attributes, node_of=NODES)
  assert (found.group, found.nodes, found.bytes) == (group, nodes, 1024)
  (found,) = grouped(attributes)  # Where fast links join all, nothing leaves them.
  assert (found.group, found.nodes) == (group, 1)


def test_a_permutation_leaves_a_node_where_a_pair_does():
  for pairs, nodes in (('{{0,1},{1,2}}', 1), ('{{0,1},{3,4}}', 2)):
    (found,) = grouped(f'source_target_pairs={pairs}', opcode='collective-permute', node_of=NODES)
    assert (found.kind, found.group, found.nodes) == ('collective-permute', 8, nodes)


@pytest.mark.parametrize(
  ('slices', 'kind', 'expected', 'count'),
  [
    ('1,2', 'ALL_REDUCE', 'all-reduce', 2),
    ('1:4', 'ALL_REDUCE', 'all-reduce', 4),
    ('1,3:5', 'ALL_GATHER', 'all-gather', 4),
    ('1,2', 'ONE_TO_ONE', 'collective-permute', 2),
  ],
)
def test_what_a_tpu_sends_to_other_slices_is_a_collective(slices, kind, expected, count):
  (found,) = grouped(
    'is_host_transfer=true, frontend_attributes={_xla_megascale_target="{'
    + slices
    + '}x{0:3}",_xla_megascale_transfer_type="'
    + kind
    + '"}',
    opcode='send',
  )
  assert found == Collective(kind=expected, group=count, nodes=count, count=1, bytes=1024)
  assert grouped('is_host_transfer=true', opcode='send') == []


def test_a_sum_inside_a_fusion_counts():
  header = """
%all-reduce-scatter.1 (x: f32[256]) -> f32[32] {
  %x = f32[256]{0} parameter(0)
  %whole = f32[256]{0} all-reduce(%x), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  %zero = s32[] constant(0)
  ROOT %part = f32[32]{0} dynamic-slice(%whole, %zero), dynamic_slice_sizes={32}
}
"""
  (found,) = grouped('kind=kCustom, calls=%all-reduce-scatter.1', opcode='fusion', header=header)
  assert found == Collective(kind='reduce-scatter', group=8, count=1, bytes=1024)


def test_a_send_reads_its_array_once():
  module = hlo.parse("""HloModule m
ENTRY %main (p: f32[256]) -> f32[256] {
  %p = f32[256]{0} parameter(0)
  %token = token[] after-all()
  %send = (f32[256]{0}, u32[], token[]) send(%p, %token), channel_id=1, is_host_transfer=true
  ROOT %done = token[] send-done(%send), channel_id=1
}""")
  assert traffic(module, other_spaces=True) == 1024


def test_traffic_counts_what_moves_once():
  module = hlo.parse(PROGRAM)
  moved = {
    'fused': 64,
    'rs': 256 + 32,
    'gather': 64 + 512,
    'both': 32 + 64 + 32,
    'reduced': 5 * (64 + 64),
    'part': 128,
    'fetch': 256,
  }
  # `fused` lies in on-chip memory; where spaces mean nothing, it counts on both sides.
  assert traffic(module, other_spaces=True) == sum(moved.values())
  assert traffic(module, other_spaces=False) == (
    sum(moved.values()) + 1024 + 1024 + 128 + 256
  )  # `fused` is padded to 256 elements.


def test_loops_of_unknown_length_are_noticed():
  assert hlo.unknown_loops(hlo.parse(PROGRAM)) == 0
  assert hlo.repeated_loops(hlo.parse(PROGRAM)) == 1
  unknown = PROGRAM.replace(', backend_config={"known_trip_count":{"n":"5"}}', '')
  assert hlo.unknown_loops(hlo.parse(unknown)) == 1
  assert collectives(hlo.parse(unknown))[-1].bytes == 64
  once = PROGRAM.replace('"n":"5"', '"n":"1"')
  assert hlo.repeated_loops(hlo.parse(once)) == 0


@pytest.mark.parametrize(
  'text', ['', 'module @jit_step {', 'HloModule empty\n\n%f (x: f32[]) -> f32[] {']
)
def test_other_text_is_refused(text):
  with pytest.raises(ValueError, match='no ENTRY'):
    hlo.parse(text)


SIZES = {'pred': 1, 'u8': 1, 'bf16': 2, 'f32': 4, 'f8e4m3fn': 1, 'c64': 8, 's64': 8}


@given(st.sampled_from(sorted(SIZES)), st.lists(st.integers(0, 9), max_size=4), st.integers(0, 3))
def test_any_shape_is_weighed(dtype, dimensions, space):
  count = 1
  for size in dimensions:
    count *= size
  layout = (
    '{'
    + ','.join(map(str, range(len(dimensions))))
    + ':T(8,128)'
    + (f'S({space})' if space else '')
    + '}'
  )
  text = f"""HloModule m
ENTRY %main (p: f32[]) -> f32[] {{
  ROOT %p = {dtype}[{','.join(map(str, dimensions))}]{layout} parameter(0)
}}"""
  (shape,) = hlo.parse(text).computations['main']['p'].shapes
  assert (shape.bytes, shape.space) == (count * SIZES[dtype], space)
  assert shape.stored >= shape.bytes and (shape.stored == 0) == (count == 0)


@pytest.mark.parametrize(
  ('text', 'stored'),
  [
    ('f32[5,3]{1,0}', 60),
    ('f32[5,3]{1,0:T(8,128)}', 4 * 8 * 128),
    ('f32[5,3]{0,1:T(8,128)}', 4 * 128 * 8),
    ('bf16[9,200]{1,0:T(8,128)(2,1)}', 2 * 16 * 256),
    ('bf16[7,64,56,56]{0,3,2,1:T(8,128)(2,1)S(1)}', 2 * 128 * 56 * 56 * 64),
    ('f32[100]{0:T(256)}', 1024),
    ('f32[]{:T(128)}', 4),
    ('u8[0,4]{1,0:T(8,128)}', 0),
  ],
)
def test_padding_of_tiles(text, stored):
  program = f"""HloModule m
ENTRY %main (p: f32[]) -> f32[] {{
  ROOT %p = {text} parameter(0)
}}"""
  (shape,) = hlo.parse(program).computations['main']['p'].shapes
  assert shape.stored == stored


def real_programs():
  """Collectives of programs over 4 devices that say what they do."""
  import jax
  import jax.numpy as jnp
  from jax.sharding import PartitionSpec as P

  from painformer_jax.parallel.mesh import batch_sharding, data_mesh, replicated

  mesh = data_mesh()
  rows, whole = batch_sharding(mesh), replicated(mesh)
  x = jax.ShapeDtypeStruct((8, 16), jnp.float32)

  def repeated(x):
    def turn(total, _):
      return jax.lax.psum(total * 1.5, 'data'), None

    return jax.lax.scan(turn, x, length=6)[0]

  programs = {
    'sum': jax.jit(lambda x: jnp.tanh(x).sum(0), in_shardings=rows, out_shardings=whole),
    'gather': jax.jit(jnp.tanh, in_shardings=rows, out_shardings=whole),
    'none': jax.jit(jnp.tanh, in_shardings=rows, out_shardings=rows),
    'loop': jax.jit(jax.shard_map(repeated, mesh=mesh, in_specs=P(), out_specs=P())),
  }
  found = {}
  for name, program in programs.items():
    module = hlo.parse(program.lower(x).compile().as_text())
    found[name] = [[c.kind, c.group, c.count, c.bytes] for c in collectives(module)]
    found[name] += [hlo.unknown_loops(module)]
  return found


def test_real_programs(on_devices):
  found = on_devices(4, real_programs)
  assert found == {
    'sum': [['all-reduce', 4, 1, 64], 0],
    'gather': [['all-gather', 4, 1, 128], 0],
    'none': [0],
    'loop': [['all-reduce', 4, 6, 6 * 512], 0],
  }
