import shlex


def replay_command(folder, episode_id):
    return f"python -m experiments.replay {folder} {shlex.quote(episode_id)}"
