# What `sam build` runs for each function, from the root of the project: BuildMethod makefile in
# template.yaml, and samconfig.toml names this file. Functions that call Stripe ship its package,
# the others don't. EVENT_HANDLERS in the environment names the folder of custom handlers.

PYTHON ?= $(shell sh tools/find-python.sh)

build-CreateCustomer: function = create_customer
build-GetCustomer: function = get_customer
build-UpdateCustomer: function = update_customer
build-SyncCustomer: function = sync_customer
build-SoftDeleteCustomer: function = soft_delete_customer
build-AdoptCustomer: function = adopt_customer
build-LinkCustomer: function = link_customer
build-ApplyEvent: function = apply_event
build-ReconcileEvents: function = reconcile_events
build-ReplayEvents: function = replay_events
build-EraseCustomer: function = erase_customer
build-WalkAccount: function = walk_account

requirements = function
build-CreateCustomer build-UpdateCustomer build-SyncCustomer: requirements = function-stripe
build-AdoptCustomer: requirements = function-stripe
build-ApplyEvent build-ReconcileEvents build-ReplayEvents: requirements = function-stripe
build-EraseCustomer build-WalkAccount: requirements = function-stripe

build-%:
	@$(PYTHON) -m tools.bundle $(function) $(requirements) $(ARTIFACTS_DIR)
