"""Which process of how many: from the variables of torchrun, deepspeed and srun."""

import pytest

from hypersigma.launch import LaunchError, Place, from_environment, hosts

STEP = {
    "SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8",
    "SLURM_JOB_ID": "61234", "SLURM_NODELIST": "gpu[03-04,11]",
}  # fmt: skip


def test_nothing_is_a_single_process():
    assert from_environment({}) == Place(rank=0, local_rank=0, world=1)


def test_torchrun_and_deepspeed_say_it_in_the_same_words():
    place = from_environment({
        "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "29500",
    })  # fmt: skip
    assert place == Place(3, 1, 4, "10.0.0.1", 29500, launched=True)


def test_srun_gives_the_first_node_and_a_port_of_the_job():
    place = from_environment(STEP)
    assert place == Place(5, 1, 8, "gpu03", 20_000 + 61234 % 20_000, launched=True)


def test_a_step_of_fewer_tasks_than_its_job_counts_its_own():
    place = from_environment(
        STEP | {"SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_NODELIST": "gpu04", "MASTER_PORT": "7"}
    )
    assert (place.world, place.address, place.port) == (6, "gpu04", 7)


def test_the_script_of_a_job_is_no_task_of_a_step():
    script = {name: value for name, value in STEP.items() if name != "SLURM_STEP_ID"}
    assert from_environment(script | {"SLURM_PROCID": "0"}) == Place()


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("login", ["login"]),
        ("node[01-03,7]", ["node01", "node02", "node03", "node7"]),
        ("a[9-11],b", ["a9", "a10", "a11", "b"]),
        ("r[1-2]n[1-2].x", ["r1n1.x", "r1n2.x", "r2n1.x", "r2n2.x"]),
    ],
)
def test_lists_of_nodes(nodes, expected):
    assert hosts(nodes) == expected


@pytest.mark.parametrize("nodes", ["", "node[", "node[1-x]", "node[]"])
def test_refuses_a_list_of_nodes_that_is_none(nodes):
    with pytest.raises(LaunchError, match="expected nodes such as"):
        hosts(nodes)


def test_says_which_variable_is_wrong():
    with pytest.raises(LaunchError, match=r"a number in the variable WORLD_SIZE, got 'x'"):
        from_environment({"RANK": "0", "WORLD_SIZE": "x"})
    with pytest.raises(LaunchError, match=r"MASTER_ADDR to be set"):
        from_environment({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_PORT": "1"})
    with pytest.raises(LaunchError, match=r"a rank below .* got 2 of 2"):
        from_environment(STEP | {"SLURM_PROCID": "2", "SLURM_NTASKS": "2"})
