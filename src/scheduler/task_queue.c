/*-------------------------------------------------------------------------
 *
 * task_queue.c
 *		Tasks of a role that wait for their time, in the scheduler's memory.
 *
 * A queue is a beginning of what the table has: all tasks up to a frontier, in
 * the order in which they are to be handed out.  Once all has been read there is
 * no frontier any more.  lookahead.c fills it, and decides what is in it.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "scheduler/scheduler.h"

static int
task_queue_cmp(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	const LookaheadTask *x = pairingheap_const_container(LookaheadTask, node, a);
	const LookaheadTask *y = pairingheap_const_container(LookaheadTask, node, b);

	/* a pairing heap has its greatest element first */
	return -queue_key_cmp(&x->key, &y->key);
}

/* Make a queue of which nothing has been read. */
void
task_queue_init(TaskQueue *queue, Role *role)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	memset(queue, 0, sizeof(TaskQueue));
	queue->role = role;
	queue->waiting = pairingheap_allocate(task_queue_cmp, NULL);
	queue->frontier.run_at = DT_NOBEGIN;
	queue->frontier.id = PG_INT64_MIN;
	MemoryContextSwitchTo(old);
}

/* Free a queue in which nothing waits. */
void
task_queue_free(TaskQueue *queue)
{
	Assert(queue->nwaiting == 0);
	pairingheap_free(queue->waiting);
}

/* Have a task wait in a queue. */
void
task_queue_add(TaskQueue *queue, LookaheadTask *task)
{
	task->queue = queue;
	pairingheap_add(queue->waiting, &task->node);
	queue->nwaiting++;
}

/* Take a task out of the queue in which it waits. */
void
task_queue_remove(LookaheadTask *task)
{
	pairingheap_remove(task->queue->waiting, &task->node);
	task->queue->nwaiting--;
}

/* Return the task that is next, or NULL if none waits. */
LookaheadTask *
task_queue_first(TaskQueue *queue)
{
	if (queue->nwaiting == 0)
		return NULL;
	return pairingheap_container(LookaheadTask, node, pairingheap_first(queue->waiting));
}

/* Return whether a queue has been read as far as key. */
bool
task_queue_covers(const TaskQueue *queue, const QueueKey *key)
{
	return queue->read_all || queue_key_cmp(key, &queue->frontier) <= 0;
}
