# The module built into firmware, for ports that use CMake (ESP32, RP2):
# idf.py -D USER_C_MODULES=.../firmware/micropython/src/micropython.cmake
add_library(usermod_drip INTERFACE)
set(DRIP_CORE_DIR ${CMAKE_CURRENT_LIST_DIR}/../../core)
file(GLOB DRIP_CORE_SOURCES ${DRIP_CORE_DIR}/src/*.c ${DRIP_CORE_DIR}/src/kernels/*.c)
# A firmware has the C library's memory functions: mp_memory.c is for native modules only.
target_sources(usermod_drip INTERFACE
    ${CMAKE_CURRENT_LIST_DIR}/mp_module.c
    ${CMAKE_CURRENT_LIST_DIR}/mp_scorer.c
    ${CMAKE_CURRENT_LIST_DIR}/mp_board.c
    ${DRIP_CORE_SOURCES}
)
target_include_directories(usermod_drip INTERFACE
    ${CMAKE_CURRENT_LIST_DIR} ${DRIP_CORE_DIR}/include ${DRIP_CORE_DIR}/src
)
target_link_libraries(usermod INTERFACE usermod_drip)
