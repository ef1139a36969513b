/*-------------------------------------------------------------------------
 *
 * known_roles.c
 *		The roles of which the scheduler knows tasks or workers.
 *
 * Three others work with what is kept of a role: lookahead.c with its tasks,
 * admission.c with whether these may run, worker_pool.c with its workers.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "scheduler/scheduler.h"

static HTAB *roles = NULL;

/* Begin, once a scheduler. */
void
known_roles_start(void)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(Role)};

	roles = hash_create("taskshed roles", 16, &ctl, HASH_ELEM | HASH_BLOBS);
}

/* Return a role.  Of a new one, no task has been read. */
Role *
known_roles_get(Oid oid)
{
	bool		found;
	Role	   *role = hash_search(roles, &oid, HASH_ENTER, &found);

	if (!found)
	{
		memset((char *) role + sizeof(Oid), 0, sizeof(Role) - sizeof(Oid));
		task_queue_init(&role->queue, role);
	}
	return role;
}

/* Return how many roles there are. */
int
known_roles_count(void)
{
	return hash_get_num_entries(roles);
}

/*
 * Return the roles one after the other, NULL at the end.  No role may be added
 * while they are gone through; the loop must be run to its end.
 */
Role *
known_roles_next(bool restart)
{
	static HASH_SEQ_STATUS scan;

	if (restart)
		hash_seq_init(&scan, roles);
	return hash_seq_search(&scan);
}

/*
 * Forget the roles that have neither tasks nor workers.  With the next note of
 * a task of theirs they are new again, and have nothing read.
 */
void
known_roles_prune(void)
{
	Role	   *role;

	for (role = known_roles_next(true); role != NULL; role = known_roles_next(false))
	{
		if (!role->queue.read_all || role->queue.nwaiting > 0 || role->nworkers > 0)
			continue;
		task_queue_free(&role->queue);
		if (role->reason != NULL)
			pfree(role->reason);
		hash_search(roles, &role->oid, HASH_REMOVE, NULL);
	}
}
